"""Which of several sources each row of a stream is from, so that each has its share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sar_eval.train.seeded_order import Index, permutation

BLOCK = 10_000  # rows in which each source has its share exactly: weights are kept to four digits
MIX = 3  # word of the hash


class Mixture:
    """Sources by position: shuffled within blocks of rows, in each of which shares are exact.

    Attributes:
        quotas: rows of each source in a block [sources].
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self.quotas, self._seed = quotas_of(weights), seed
        self._block, self._numbers, self._ranks = -1, np.empty(0, np.int64), np.empty(0, np.int64)

    def places(self, positions: Index) -> tuple[Index, Index]:
        """Source of each position, and how many positions before it are of that source."""
        if len(self.quotas) == 1:
            return np.zeros_like(positions), positions
        blocks, within = np.divmod(positions, BLOCK)
        numbers, indices = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks).tolist():
            self._go_to(block)
            here = blocks == block
            numbers[here] = self._numbers[within[here]]
            indices[here] = self._ranks[within[here]] + block * self.quotas[numbers[here]]
        return numbers, indices

    def _go_to(self, block: int) -> None:
        """Hold the sources of a block's rows, and how many of its rows before each are of the same."""
        if block == self._block:
            return
        numbers = np.repeat(np.arange(len(self.quotas)), self.quotas)
        self._block, self._numbers = block, numbers[permutation(BLOCK, self._seed, MIX, block)]
        self._ranks = np.empty(BLOCK, np.int64)
        for number, quota in enumerate(self.quotas.tolist()):
            self._ranks[self._numbers == number] = np.arange(quota)


def quotas_of(weights: Sequence[float]) -> Index:
    """Rows of each source in a block: at least one, and `BLOCK` in all, by the largest remainders."""
    exact = np.array(weights) / math.fsum(weights) * BLOCK
    quotas = np.maximum(np.floor(exact), 1).astype(np.int64)
    for _ in range(BLOCK - int(quotas.sum())):
        quotas[np.argmax(exact - quotas)] += 1
    for _ in range(int(quotas.sum()) - BLOCK):  # of tiny weights each has one: the largest gives it
        quotas[np.argmax(quotas)] -= 1
    return quotas
