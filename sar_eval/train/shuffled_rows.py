"""The endless shuffled rows of one source: epoch after epoch, each in an order of its own.

In an epoch the row groups of all shards come in a shuffled order. They are cut into windows of whole row
groups, and the rows within a window are shuffled. One window is held in memory, and any row is found by
arithmetic on the numbers of rows, so that a training can go on anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sar_eval.storage.token_rows import TokenRows, gathered
from sar_eval.storage.token_shards import TokenShards
from sar_eval.train.seeded_order import Index, permutation

GROUPS, ROWS = 1, 2  # what is shuffled, as a word of the hash


@dataclass(frozen=True, slots=True)
class Window:
    """Some row groups in memory, until the next are read.

    Attributes:
        start, stop: its rows in the endless order.
        rows: in the order of the files.
    """

    start: int
    stop: int
    rows: TokenRows
    _order: Index

    def places(self, indices: Index) -> Index:
        """Numbers in `rows` of rows of the endless order."""
        return self._order[indices - self.start]


@dataclass(frozen=True, slots=True)
class _Epoch:
    """The order of an epoch: row groups, and for each window its first group and its first row."""

    number: int
    groups: Index
    first_groups: Index
    first_rows: Index


class ShuffledRows:
    """Rows of shards in an endless order that the seed decides. Pickles without what it has read."""

    def __init__(self, shards: TokenShards, seed: int, number: int, window: int) -> None:
        """Plan the first epoch.

        Args:
            shards: what is read.
            seed: of the order.
            number: of this source among several.
            window: rows that are shuffled at a time, and a row group more.
        """
        self.shards, self._words, self._size = shards, (seed, number), max(1, window)
        self.rows = int(shards.rows.sum())
        self._epoch = self._plan(0)
        self._window: Window | None = None
        self._buffer = np.empty(0, shards.code_type)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_window": None, "_buffer": self._buffer[:0].copy()}

    def forget(self) -> None:
        """Give the memory of what was read back."""
        self._window, self._buffer = None, self._buffer[:0].copy()

    def windows(self, indices: Index) -> Iterator[tuple[Window, slice]]:
        """The windows that ascending indices of the endless order are in, and which of them each has.

        Raises:
            BadInput: see `TokenShards.read`.
        """
        begin = 0
        while begin < len(indices):
            window = self._window_at(int(indices[begin]))
            end = int(np.searchsorted(indices, window.stop))
            yield window, slice(begin, end)
            begin = end

    def _window_at(self, index: int) -> Window:
        held = self._window
        if held is None or not held.start <= index < held.stop:
            self._window = None  # what it held is overwritten
            self._window = held = self._read(index)
        return held

    def _read(self, index: int) -> Window:
        epoch, row = divmod(index, self.rows)
        if epoch != self._epoch.number:
            self._epoch = self._plan(epoch)
        plan = self._epoch
        number = int(np.searchsorted(plan.first_rows, row, "right")) - 1
        start, stop = (epoch * self.rows + int(plan.first_rows[number + n]) for n in (0, 1))
        groups = plan.groups[plan.first_groups[number] : plan.first_groups[number + 1]].tolist()
        rows = gathered(map(self.shards.read, groups), self._room(stop - start))
        return Window(start, stop, rows, permutation(stop - start, *self._words, ROWS, epoch, number))

    def _room(self, rows: int) -> NDArray[np.unsignedinteger[Any]]:
        """A buffer for the codes of so many rows; the system gives memory only for what is written."""
        tokens = rows * max(map(math.prod, self.shards.sizes))
        if len(self._buffer) < tokens:
            self._buffer = np.empty(tokens, self.shards.code_type)
        return self._buffer

    def _plan(self, number: int) -> _Epoch:
        groups = permutation(len(self.shards.rows), *self._words, GROUPS, number)
        ends = np.cumsum(self.shards.rows[groups])
        firsts = [0]
        while firsts[-1] < len(groups):
            begun = ends[firsts[-1] - 1] if firsts[-1] else 0
            firsts.append(min(int(np.searchsorted(ends, begun + self._size)) + 1, len(groups)))
        first_groups = np.array(firsts)
        return _Epoch(number, groups, first_groups, np.concatenate([[0], ends])[first_groups])
