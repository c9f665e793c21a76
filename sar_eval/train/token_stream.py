"""Captioned visual tokens as training sees them: a stream of rows that is a function of the seed alone."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.storage.shards import Place
from sar_eval.storage.token_rows import TokenRows
from sar_eval.storage.token_shards import TokenShards
from sar_eval.train.seeded_order import permutation, uniform
from sar_eval.train.shuffled_rows import Index, ShuffledRows

MIXTURE = 10_000  # rows in which each source has its share: weights are kept to four digits
DROP, CHOOSE, MIX = 3, 4, 5  # what is drawn, as a word of the hash
_WEIGHTED = re.compile(r"(.+):([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class WeightedPlace:
    """Where shards are, and their share in training; None where places are read like one."""

    place: Place
    weight: float | None = None

    def __post_init__(self) -> None:
        """Refuse a weight that is none.

        Raises:
            BadInput: it is not above 0.
        """
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise BadInput(f"{self.place}: the weight is {self.weight:g}: it must be above 0")


def parse_place(text: str) -> WeightedPlace:
    """A place as the command line names it: `FOLDER`, `URI`, `FOLDER:WEIGHT` or `URI:WEIGHT`.

    A folder that is there is taken by its whole name, whatever that ends with.

    Raises:
        BadInput: the weight is not above 0.
    """
    match = _WEIGHTED.fullmatch(text)
    if match is None or Path(text).exists():
        return WeightedPlace(text)
    return WeightedPlace(match[1], float(match[2]))


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A picture to train on.

    Attributes:
        key: what names it.
        caption: None where it was dropped, for guidance.
        codes: [height * width] in raster order.
        height, width: in tokens.
    """

    key: str
    caption: str | None
    codes: NDArray[np.int32]
    height: int
    width: int


class TokenStream:
    """An endless stream of rows. Row n is a function of the data, the weights, seed and window.

    Without weights the rows of all places are one source: an epoch has each once. With weights each place
    is a source with epochs of its own, and of every 10,000 rows it has its share. Captions are chosen among
    those of a picture, and dropped, by a hash of seed and position: anew in each epoch.

    Memory is that of the window: `window` rows and a row group more, of each source its share.

    Attributes:
        rows_an_epoch: rows of all places.
        sizes: (height, width) in tokens of all pictures.
        max_code: the highest code, by the footers; None where these do not say it, and codes are checked
            against `codebook_size` as they are read.
        codebook_size: of the tokenizer; None where the shards do not say.
        metadata: what else shards say of the tokenizer (`encoder`).
    """

    def __init__(
        self, places: Sequence[WeightedPlace], *, seed: int, window: int, caption_dropout: float
    ) -> None:
        """Read the footers of all shards.

        Raises:
            BadInput: see `TokenShards`; or some places have weights and others none.
        """
        self._seed, self._dropout = seed, caption_dropout
        everything, shares = _sources(places)
        self._quotas = _quotas(shares)
        self._sources = [
            ShuffledRows(shards, seed, number, math.ceil(window * quota / MIXTURE))
            for number, (shards, quota) in enumerate(zip(everything, self._quotas, strict=True))
        ]
        self._mixed: tuple[int, Index, Index] | None = None
        self.rows_an_epoch = sum(source.rows for source in self._sources)
        self.sizes = frozenset[tuple[int, int]]().union(*(shards.sizes for shards in everything))
        self.codebook_size, self.metadata = everything[0].codebook_size, everything[0].metadata
        highest = [shards.max_code for shards in everything]
        self.max_code = None if None in highest else max(code for code in highest if code is not None)

    def rows(self, start: int, stop: int) -> list[TrainRow]:
        """Rows of the stream; those that follow the last ones are read fastest.

        Raises:
            BadInput: see `TokenShards.read`.
        """
        return self.read(start, stop, range(start, stop))[0]

    def read(self, start: int, stop: int, wanted: Container[int]) -> tuple[list[TrainRow], int]:
        """Some rows of a range, and the number of visual tokens of all its rows.

        Raises:
            BadInput: see `TokenShards.read`.
        """
        positions = np.arange(start, stop)
        needed = np.array([position in wanted for position in positions.tolist()], bool)
        total = 0
        if len(self.sizes) == 1:  # then what is not wanted need not be read
            [(height, width)] = self.sizes
            total, positions = len(positions) * height * width, positions[needed]
            needed = np.ones(len(positions), bool)
        numbers, indices = self._places(positions)
        found: dict[int, TrainRow] = {}
        for number, source in enumerate(self._sources):
            own = numbers == number
            for window, part in source.windows(indices[own]):
                if len(self.sizes) > 1:
                    total += int(window.lengths(indices[own][part]).sum())
                here = needed[own][part]
                at, where = positions[own][part][here], indices[own][part][here]
                found |= {
                    position: self._row(position, *window.row(index))
                    for position, index in zip(at.tolist(), where.tolist(), strict=True)
                }
        return [found[position] for position in sorted(found)], total

    def _row(self, position: int, group: TokenRows, number: int) -> TrainRow:
        return TrainRow(
            group.key(number),
            self._caption(position, group, number),
            group.codes(number),
            int(group.heights[number]),
            int(group.widths[number]),
        )

    def _caption(self, position: int, group: TokenRows, number: int) -> str | None:
        if uniform(self._seed, DROP, position)[0] < self._dropout:
            return None
        choices = group.captions(number)
        chosen = int(uniform(self._seed, CHOOSE, position)[0] * choices) if choices > 1 else 0
        return group.caption(number, chosen)

    def _places(self, positions: Index) -> tuple[Index, Index]:
        """Source of each position, and index in the endless order of that."""
        if len(self._sources) == 1:
            return np.zeros(len(positions), np.int64), positions
        blocks, places = np.divmod(positions, MIXTURE)
        numbers, indices = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            of_block, within = self._mixture(block)
            numbers[here] = of_block[places[here]]
            indices[here] = within[places[here]] + block * self._quotas[numbers[here]]
        return numbers, indices

    def _mixture(self, block: int) -> tuple[Index, Index]:
        """Source of each row of a block, and how many of the block's rows before it are of that source."""
        if self._mixed is None or self._mixed[0] != block:
            numbers = np.repeat(np.arange(len(self._quotas)), self._quotas)
            numbers = numbers[permutation(MIXTURE, self._seed, MIX, block)]
            within = np.empty(MIXTURE, np.int64)
            for number, quota in enumerate(self._quotas.tolist()):
                within[numbers == number] = np.arange(quota)
            self._mixed = block, numbers, within
        return self._mixed[1], self._mixed[2]


def _sources(places: Sequence[WeightedPlace]) -> tuple[list[TokenShards], list[float]]:
    """The shards of each source, and its weight.

    Raises:
        BadInput: some places have weights and others none; or see `TokenShards`.
    """
    weights = [found.weight for found in places if found.weight is not None]
    if not weights:
        return [TokenShards([found.place for found in places])], [1.0]
    if len(weights) < len(places):
        without = next(found.place for found in places if found.weight is None)
        raise BadInput(
            f"{without} has no weight, but other data has: give all a weight ({without}:1) or none"
        )
    shards = [TokenShards([found.place]) for found in places]
    for found, place in zip(shards, places, strict=True):
        if found.metadata != shards[0].metadata:
            raise BadInput(
                f"{place.place} was made with {found.metadata}, {places[0].place} with "
                f"{shards[0].metadata}: codes of several tokenizers cannot be trained together"
            )
    return shards, weights


def _quotas(weights: Sequence[float]) -> Index:
    """Rows of each source in a block: at least one, and `MIXTURE` in all, by the largest remainders."""
    exact = np.array(weights) / math.fsum(weights) * MIXTURE
    quotas = np.maximum(np.floor(exact), 1).astype(np.int64)
    for _ in range(MIXTURE - int(quotas.sum())):
        quotas[np.argmax(exact - quotas)] += 1
    while quotas.sum() > MIXTURE:  # many tiny weights, of which each has its one
        quotas[np.argmax(quotas)] -= 1
    return quotas
