"""mPLUG-large VQA, the network that answers DPG-Bench's questions, in plain torch.

Paper: Li et al., mPLUG, arXiv 2205.12005. Facts: modelscope 1.40.2, `models/multi_modal/mplug` and
`preprocessors/multi_modal.py`; parity with it is a test. An image is seen once for all its questions.

The network's text is the official answer; DPG counts it only if it is exactly "yes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.networks.mplug.network import Mplug
from sar_eval.networks.mplug.search import Found, Rules, search
from sar_eval.networks.mplug.tokenizer import END, START, Encoded, Words
from sar_eval.networks.mplug.weights import VOCABULARY, read_weights

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the network says to one question.

    Attributes:
        text: its answer.
        soft: p(yes) / (p(yes) + p(no)) of the first token, before any search: how sure it is, if it
            had to say one of the two. Not the chance of the official answer, and above one half does
            not mean that this is "yes".
        truncated: the question was longer than 25 ids, and its end was cut off.
        ids: of the answer, [CLS] first.
    """

    text: str
    soft: float
    truncated: bool
    ids: tuple[int, ...]


class MplugVqa:
    """The network with loaded weights.

    Attributes:
        digest: SHA-256 of `pytorch_model.bin`.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        """Load the original files (see `mplug_weights`).

        Args:
            folder: holds them.
            device: of torch.
            dtype: of the weights and products; float32 is official.

        Raises:
            BadInput: files that are missing, unreadable or of another network.
        """
        loaded = read_weights(folder)
        self.shape, self.digest = loaded.shape, loaded.digest
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.words = Words(folder / VOCABULARY, self.shape.vocabulary)
        with torch.device("meta"):
            self.network = Mplug(self.shape)
        self.network.load_state_dict(loaded.state, strict=True, assign=True)
        self.network.eval().requires_grad_(False).to(self.device, self.dtype)
        self.rules = Rules(self.shape.beams, self.shape.shortest, self.shape.longest, START, END)

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Squash one RGB image uint8 [H, W, 3] to the network's square, uint8 `[S, S, 3]`.

        Raises:
            BadInput: another type or shape; such an image would be judged without a complaint.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise BadInput(f"mPLUG needs RGB uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        square = (self.shape.side, self.shape.side)
        return torch.from_numpy(
            np.array(Image.fromarray(image).resize(square, Image.Resampling.BICUBIC), np.uint8)
        )

    def pixels(self, prepared: Sequence[Tensor]) -> Tensor:
        """Normalised float32 `[P, 3, S, S]` on the device."""
        whole = torch.stack(list(prepared)).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(each, device=self.device).view(3, 1, 1) for each in (MEAN, STD))
        return (whole - mean) / std

    def answer(
        self, prepared: Sequence[Tensor], questions: Sequence[Sequence[str]]
    ) -> list[list[Reply | None]]:
        """A reply to each question of each prepared image; None where a question has no word.

        Raises:
            BadInput: the network answers NaN or infinity.
        """
        encoded = [[self.words.encode(question) for question in own] for own in questions]
        asked = [[one for one in own if one.length > 2] for own in encoded]
        seen = [image for image, own in zip(prepared, asked, strict=True) if own]
        replies = iter(self._replies(seen, [own for own in asked if own]))
        return [[next(replies) if one.length > 2 else None for one in own] for own in encoded]

    @torch.inference_mode()
    def _replies(self, prepared: Sequence[Tensor], asked: Sequence[Sequence[Encoded]]) -> list[Reply]:
        if not prepared:
            return []
        rows = [one for own in asked for one in own]
        ids = torch.tensor([one.ids for one in rows])
        mask = torch.arange(ids.shape[1]) < torch.tensor([[one.length] for one in rows])
        tokens = self.network.see(self.pixels(prepared).to(self.dtype))
        counts = [len(own) for own in asked]
        answering = self.network.ask(tokens, ids.to(self.device), mask.to(self.device), counts)
        first = answering.start(START)
        if not first.isfinite().all():
            kind = str(self.dtype).removeprefix("torch.")
            raise BadInput(f"mPLUG answers NaN or infinity on {self.device} in {kind}: take dtype float32")
        soft = (first[:, self.words.yes] - first[:, self.words.no]).sigmoid().tolist()
        found: list[Found] = search(first, answering, self.rules)
        return [
            Reply(self.words.decode(told.ids), sure, one.truncated, told.ids)
            for told, sure, one in zip(found, soft, rows, strict=True)
        ]
