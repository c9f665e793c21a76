"""Captioned visual tokens as training sees them: a stream of rows that is a function of the seed alone."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.storage.shards import Place
from sar_eval.storage.token_rows import TokenRows
from sar_eval.storage.token_shards import TokenShards, check_same_codes
from sar_eval.train.mixture import BLOCK, Mixture
from sar_eval.train.seeded_order import Index, uniform
from sar_eval.train.shuffled_rows import ShuffledRows

DROP, CHOOSE = 4, 5  # what is drawn, as a word of the hash
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
            against the codebook's size as they are read.
        metadata: what shards say of the tokenizer (`codebook_size`, `encoder`).
        contents: what the order depends on: numbers of rows and of row groups, and a digest of all of them.
    """

    def __init__(
        self, places: Sequence[WeightedPlace], *, seed: int, window: int, caption_dropout: float
    ) -> None:
        """Read the footers of all shards.

        Raises:
            BadInput: see `TokenShards`; or some places have weights and others none.
        """
        self._seed, self._dropout = seed, caption_dropout
        everything, weights = _sources(places)
        self._mixture = Mixture(weights, seed)
        shares = (self._mixture.quotas / BLOCK).tolist()
        self._sources = [
            ShuffledRows(shards, seed, number, math.ceil(window * share))
            for number, (shards, share) in enumerate(zip(everything, shares, strict=True))
        ]
        self.rows_an_epoch = sum(source.rows for source in self._sources)
        self.sizes = frozenset[tuple[int, int]]().union(*(shards.sizes for shards in everything))
        self.metadata = everything[0].metadata
        self.contents = _contents(everything)
        highest = [shards.max_code for shards in everything]
        self.max_code = None if None in highest else max(code for code in highest if code is not None)

    def forget(self) -> None:
        """Give the memory of what was read back; what comes next is read again."""
        for source in self._sources:
            source.forget()

    def rows(self, start: int, stop: int) -> list[TrainRow]:
        """Rows of the stream; those that follow the last ones are read fastest.

        Raises:
            BadInput: see `TokenShards.read`.
        """
        return self.read(start, stop, np.arange(start, stop))[0]

    def read(self, start: int, stop: int, wanted: Index) -> tuple[list[TrainRow], int]:
        """Some rows of a range, and the number of visual tokens of all its rows.

        Args:
            start, stop: the range.
            wanted: positions in it, ascending.

        Raises:
            BadInput: see `TokenShards.read`.
        """
        if len(self.sizes) == 1:  # what is not wanted need not be read
            rows, _ = self._read(wanted, wanted)
            return rows, (stop - start) * math.prod(next(iter(self.sizes)))
        return self._read(np.arange(start, stop), wanted)

    def _read(self, positions: Index, wanted: Index) -> tuple[list[TrainRow], int]:
        """In one pass: a range may be of more windows than fit into memory."""
        numbers, indices = self._mixture.places(positions)
        is_wanted = positions is wanted or np.isin(positions, wanted, assume_unique=True)
        is_wanted = np.broadcast_to(is_wanted, positions.shape)
        found: dict[int, TrainRow] = {}
        total = 0
        for number, source in enumerate(self._sources):
            of_source = np.flatnonzero(numbers == number)
            for window, part in source.windows(indices[of_source]):
                here = of_source[part]
                places = window.places(indices[here])
                total += int((window.rows.heights[places] * window.rows.widths[places]).sum())
                own = is_wanted[here]
                found |= self._rows(window.rows, positions[here[own]], places[own])
        return [found[position] for position in wanted.tolist()], total

    def _rows(self, rows: TokenRows, positions: Index, places: Index) -> dict[int, TrainRow]:
        """Rows by position; `places` are their numbers in `rows`."""
        dropped = uniform(self._seed, DROP, positions) < self._dropout
        captions: list[str | None] = list(rows.captions(places, uniform(self._seed, CHOOSE, positions)))
        for number in np.flatnonzero(dropped).tolist():
            captions[number] = None
        heights, widths = rows.heights[places].tolist(), rows.widths[places].tolist()
        made = map(TrainRow, rows.keys(places), captions, rows.codes(places), heights, widths)
        return dict(zip(positions.tolist(), made, strict=True))


def _contents(sources: Sequence[TokenShards]) -> str:
    groups = sum(len(shards.rows) for shards in sources)
    rows = sum(int(shards.rows.sum()) for shards in sources)
    digest = hashlib.sha256(" ".join(shards.digest for shards in sources).encode()).hexdigest()
    return f"{rows:,} rows in {groups:,} row groups ({digest[:12]})"


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
    check_same_codes(
        [(str(place.place), found.metadata) for found, place in zip(shards, places, strict=True)]
    )
    return shards, weights
