"""Rows of a draw through the decoder, one cache a row: scores under given tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sar_eval.decoding.linear import Linear
from sar_eval.decoding.transformer import Decoder


class ForcedRows:
    """The rows of one draw, each of ids or of embeddings, fed with the same tokens."""

    def __init__(self, decoder: Decoder, prefixes: Sequence[Tensor], slots: int, first_id: int) -> None:
        self.decoder, self.first_id = decoder, first_id
        self.head = Linear(*decoder.head_of(first_id, decoder.config.vocab_size))
        self.caches = [decoder.new_cache(1, len(prefix) + slots) for prefix in prefixes]
        self.filled = [0] * len(prefixes)
        for cache, prefix in zip(self.caches, prefixes, strict=True):
            cache.image_starts.fill_(len(prefix))
        self.last = self._feed(prefixes)[:, -1]

    def _feed(self, inputs: Sequence[Tensor]) -> Tensor:
        out = []
        for row, (cache, tokens) in enumerate(zip(self.caches, inputs, strict=True)):
            start, end = self.filled[row], self.filled[row] + len(tokens)
            out.append(
                self.decoder.forward(tokens[None], torch.arange(start, end)[None], cache, end)[0, -1:]
            )
            self.filled[row] = end
        return torch.stack(out)

    def feed(self, *ids: int) -> None:
        """Take tokens into all rows."""
        self.last = self._feed([torch.tensor(ids)] * len(self.caches))[:, -1]

    def scores(self) -> Tensor:
        """Of all ids from the first on, after what was fed, `[rows, ids]`."""
        return self.head(self.last)


def mixed(scores: Tensor, guidance: float) -> Tensor:
    """Guided scores of the prompted and the unprompted row."""
    prompted, unprompted = scores
    return unprompted + guidance * (prompted - unprompted)


def forced_scores(rows: ForcedRows, codes: Sequence[int]) -> Tensor:
    """Scores at each step under given codes, `[steps, rows, ids]`."""
    found = [rows.scores()]
    for code in codes[:-1]:
        rows.feed(rows.first_id + int(code))
        found.append(rows.scores())
    return torch.stack(found)


def greedy_codes(rows: ForcedRows, guidance: float, steps: int) -> list[int]:
    """The best code at each step."""
    codes = [int(mixed(rows.scores(), guidance).argmax())]
    while len(codes) < steps:
        rows.feed(rows.first_id + codes[-1])
        codes.append(int(mixed(rows.scores(), guidance).argmax()))
    return codes
