"""Scores of pictures and prompts with a loaded HPSv3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.networks.hpsv3 import weights
from sar_eval.networks.hpsv3.picture import FACTOR, cut_patches, grid
from sar_eval.networks.hpsv3.text import Request, RequestTokenizer

Pixels = NDArray[np.uint8]
# Tokens of a request with a prompt of 500 words; 800 are the instruction's and the picture's.
USUAL_LENGTH = 1300
MAX_PADDING = 1.25  # the longest request of a batch by the shortest


class Judgement(NamedTuple):
    """The head's two numbers: the mean, which is the score, and the raw spread, the logarithm of sigma."""

    mean: float
    raw_spread: float


class Hpsv3:
    """The network with loaded weights and its tokenizer.

    Attributes:
        longest: tokens of the longest request that the base was made for.
    """

    def __init__(self, path: Path, base: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        """Load both.

        Args:
            path: of the weights.
            base: folder of Qwen2-VL-7B-Instruct's `config.json` and `tokenizer.json`.
            device: torch device.
            dtype: of the body. The authors ran bfloat16 on a GPU, which differs from float32 in the
                second digit.

        Raises:
            BadInput: files that are unreadable, of another network, or do not fit together.
        """
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.tokenizer = RequestTokenizer(base / "tokenizer.json")
        self.network = weights.load(path, base, self.tokenizer.size, self.dtype, self.device)
        self.longest = int(self.network.language_model.config.max_position_embeddings)

    def request(self, picture: Pixels, prompt: str) -> Request:
        """Token ids of a request about a resized picture `[H, W, 3]`.

        Raises:
            BadInput: a prompt that is too long or contains the request's own tokens.
        """
        height, width = (side // FACTOR for side in picture.shape[:2])
        request = self.tokenizer.encode(prompt, height * width)
        if len(request.ids) > self.longest:
            raise BadInput(f"the request has {len(request.ids):,} tokens, of at most {self.longest:,}")
        return request

    def score(
        self, pictures: Sequence[Pixels], requests: Sequence[Request], at_once: int
    ) -> list[Judgement]:
        """Judgements of resized pictures, in order; at most `at_once` share a forward pass."""
        found: dict[int, Judgement] = {}
        for indices in by_length(requests, at_once):
            batch = [torch.from_numpy(pictures[index]) for index in indices]
            found |= zip(indices, self._score_batch(batch, [requests[i] for i in indices]), strict=True)
        return [found[index] for index in range(len(requests))]

    @torch.inference_mode()
    def _score_batch(self, pictures: Sequence[Tensor], requests: Sequence[Request]) -> list[Judgement]:
        hidden = self.hidden_at_reward(self.encode(pictures), requests)
        return [Judgement(*values) for values in self.network.judge(hidden).tolist()]

    def encode(self, pictures: Sequence[Tensor]) -> Tensor:
        """Tokens of resized pictures uint8 `[H, W, 3]`, one after another."""
        patches = torch.cat([cut_patches(picture.to(self.device)) for picture in pictures])
        return self.network.encode_pictures(patches.to(self.dtype), grid(pictures).to(self.device))

    def hidden_at_reward(
        self, picture_tokens: Tensor, requests: Sequence[Request], positions: Tensor | None = None
    ) -> Tensor:
        """Hidden states `[B, width]` at the rewards' tokens; positions as in `Hpsv3Network.read`."""
        ids, mask = self.pad(requests)
        is_picture = ids == self.tokenizer.picture_id
        padded = None if bool(mask.all()) else mask
        hidden = self.network.read(ids, is_picture, picture_tokens, padded, positions)
        rows = torch.arange(len(requests), device=self.device)
        return hidden[rows, torch.tensor([request.reward for request in requests], device=self.device)]

    def pad(self, requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
        """Ids `[B, L]`, padded on the right, and a mask that is 1 where they are not padding."""
        longest = max(len(request.ids) for request in requests)
        rows = [
            [*request.ids, *[self.tokenizer.pad_id] * (longest - len(request.ids))] for request in requests
        ]
        mask = [[index < len(request.ids) for index in range(longest)] for request in requests]
        return torch.tensor(rows, device=self.device), torch.tensor(mask, device=self.device).long()


def by_length(requests: Sequence[Request], at_once: int) -> Iterator[list[int]]:
    """Indices of batches of at most `at_once` requests of like length.

    A long prompt neither pads the others nor fills the memory: a batch has at most the tokens of that many
    usual requests.
    """
    batch: list[int] = []
    for index in sorted(range(len(requests)), key=lambda index: len(requests[index].ids)):
        length = len(requests[index].ids)
        is_full = len(batch) == at_once or length * (len(batch) + 1) > at_once * USUAL_LENGTH
        if batch and (is_full or length > MAX_PADDING * len(requests[batch[0]].ids)):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
