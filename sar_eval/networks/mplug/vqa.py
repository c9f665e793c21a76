"""mPLUG-large VQA, the network that answers DPG-Bench's questions, in plain torch.

Paper: Li et al., mPLUG, arXiv 2205.12005. Reimplemented after modelscope 1.40.2,
`models/multi_modal/mplug` and `preprocessors/multi_modal.py`; tests compare with its outputs. An image is
encoded once for all its questions.

The generated text is the official answer; DPG-Bench counts it as yes only if it is exactly "yes".
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
from sar_eval.networks.clip_pixels import MEAN, STD
from sar_eval.networks.mplug.network import Mplug
from sar_eval.networks.mplug.search import SearchConfig, beam_search
from sar_eval.networks.mplug.tokenizer import END, START, Encoded, MplugTokenizer
from sar_eval.networks.mplug.weights import VOCABULARY, read_weights


@dataclass(frozen=True, slots=True)
class MplugOutput:
    """The network's answer to one question.

    Attributes:
        text: of the best hypothesis.
        soft: p(yes) / (p(yes) + p(no)) of the first token, before the search. It is not the probability
            of the text, and a value above one half does not imply the text "yes".
        truncated: the question was longer than 25 ids and was cut.
        ids: of the text, [CLS] first.
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
        """Load the original files (see `networks.mplug.weights`).

        Args:
            folder: of the files.
            device: torch device.
            dtype: of weights and activations; float32 is official.

        Raises:
            BadInput: files that are missing, unreadable or of another network.
        """
        weights = read_weights(folder)
        self.shape, self.digest = weights.shape, weights.digest
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.tokenizer = MplugTokenizer(folder / VOCABULARY, self.shape.vocabulary)
        with torch.device("meta"):
            self.network = Mplug(self.shape)
        self.network.load_state_dict(weights.state, strict=True, assign=True)
        self.network.eval().requires_grad_(False).to(self.device, self.dtype)
        self.search_config = SearchConfig(
            self.shape.beams, self.shape.shortest, self.shape.longest, START, END
        )

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Resize one RGB image uint8 `[H, W, 3]` to the network's square, uint8 `[S, S, 3]`.

        Raises:
            BadInput: another dtype or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise BadInput(f"mPLUG needs RGB uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        square = (self.shape.side, self.shape.side)
        return torch.from_numpy(
            np.array(Image.fromarray(image).resize(square, Image.Resampling.BICUBIC), np.uint8)
        )

    def pixels(self, prepared: Sequence[Tensor]) -> Tensor:
        """Normalised float32 `[P, 3, S, S]` on the device."""
        batch = torch.stack(list(prepared)).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (MEAN, STD))
        return (batch - mean) / std

    def answer(
        self, prepared: Sequence[Tensor], questions: Sequence[Sequence[str]]
    ) -> list[list[MplugOutput | None]]:
        """An output for each question of each prepared image; None for an empty question.

        Raises:
            BadInput: logits that are not finite.
        """
        encoded = [[self.tokenizer.encode(text) for text in texts] for texts in questions]
        by_image = [[question for question in row if question.length > 2] for row in encoded]
        images = [image for image, row in zip(prepared, by_image, strict=True) if row]
        outputs = iter(self._answer_batch(images, [row for row in by_image if row]))
        return [[next(outputs) if question.length > 2 else None for question in row] for row in encoded]

    @torch.inference_mode()
    def _answer_batch(
        self, prepared: Sequence[Tensor], by_image: Sequence[Sequence[Encoded]]
    ) -> list[MplugOutput]:
        """Outputs of one forward pass, for at least one question an image."""
        if not prepared:
            return []
        questions = [question for row in by_image for question in row]
        ids = torch.tensor([question.ids for question in questions])
        mask = torch.arange(ids.shape[1]) < torch.tensor([[question.length] for question in questions])
        image_tokens = self.network.encode_images(self.pixels(prepared).to(self.dtype))
        decoder = self.network.encode_questions(
            image_tokens, ids.to(self.device), mask.to(self.device), [len(row) for row in by_image]
        )
        logits = decoder.start(START)
        self._check_finite(logits)
        soft = (logits[:, self.tokenizer.yes_id] - logits[:, self.tokenizer.no_id]).sigmoid().tolist()
        results = beam_search(logits, decoder, self.search_config)
        return [
            MplugOutput(self.tokenizer.decode(result.ids), p, question.truncated, result.ids)
            for result, p, question in zip(results, soft, questions, strict=True)
        ]

    def _check_finite(self, logits: Tensor) -> None:
        if not logits.isfinite().all():
            dtype = str(self.dtype).removeprefix("torch.")
            raise BadInput(
                f"mPLUG's output is NaN or infinity on {self.device} in {dtype}: use dtype float32"
            )
