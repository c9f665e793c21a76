"""All pairs of 64-bit hashes within a Hamming distance, exactly, in memory that grows with the hashes.

By the pigeonhole principle: if the bits are cut into `distance + agreeing` bands, two hashes that differ
in at most `distance` bits differ in at most so many bands, so they agree in some `agreeing` of them (G.
Manku, A. Jain and A. Das Sarma, "Detecting Near-Duplicates for Web Crawling", WWW 2007, section 3). For
each choice of `agreeing` bands all hashes are sorted by these bands, and those in a run of equal ones are
compared. Hashes of real pictures crowd, so a long run is searched in the same way by its other bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Pairs = Iterator[tuple[Hashes, Hashes]]

WIDTH = 64
MAX_DISTANCE = 12  # beyond, pictures have nothing to do with each other, and bands become narrow
MOST_AGREEING = 4
CHUNK = 2**21  # hashes that are compared at a time
LONG_RUN = 512  # hashes that agree in their bands; if more do, they are searched by their other bits
SAMPLE = 256  # hashes, all pairs of which tell how a set crowds
# Nanoseconds: of a table; to move and sort a hash, for each doubling of their number; to compare a pair.
TABLE, SORTING, COMPARING = 2e5, 5.0, 12.0


class Move(NamedTuple):
    """A band: its lowest bit, its number of bits, and the lowest bit of where it goes."""

    low: int
    width: int
    to: int


def near_hashes(hashes: Hashes, distance: int, bits: int = WIDTH) -> Pairs:
    """Every pair of hashes that differ in at most `distance` bits, once, in chunks of two arrays.

    Args:
        hashes: `[n]`, all different, in any order.
        distance: in bits, at most `MAX_DISTANCE`.
        bits: the lowest so many bits differ at all.
    """
    agreeing = _agreeing(hashes, distance, bits)
    if not agreeing:
        yield from _compare(hashes, np.arange(len(hashes))[::-1], distance)
        return
    cut = _cut(bits, distance + agreeing)
    for chosen in combinations(range(len(cut)), agreeing):
        passed = [band for number, band in enumerate(cut[: chosen[-1]]) if number not in chosen]
        for left, right in _near_in_order(hashes, *_layout(cut, chosen), distance):
            new = _differ_in_all(left ^ right, passed)  # else an earlier table had this pair
            yield left[new], right[new]


def _agreeing(hashes: Hashes, distance: int, bits: int) -> int:
    """In how many bands hashes shall agree, so that it takes least time; 0: compare all with all.

    Two hashes that agree in c bands are compared in C(c, agreeing) tables; a sample of pairs says how many
    bands agree. Too small a sample sees none of a large set's: they are at least as many as by chance.
    """
    count, pairs = len(hashes), len(hashes) * (len(hashes) - 1) / 2
    costs = {0: pairs * COMPARING}
    for agreeing in range(1, min(MOST_AGREEING, bits - distance) + 1):
        bands, tables = distance + agreeing, comb(distance + agreeing, agreeing)
        by_chance = tables / 2 ** (bits * agreeing // bands)
        compared = pairs * max(by_chance, _seen_in_sample(hashes, bits, bands, agreeing))
        sorting = count * np.log2(max(count, 2)) * SORTING
        costs[agreeing] = tables * (TABLE + sorting) + compared * COMPARING
    return min(costs, key=costs.__getitem__)


def _seen_in_sample(hashes: Hashes, bits: int, bands: int, agreeing: int) -> float:
    """In how many tables two hashes of a sample are compared, in the mean."""
    size = min(SAMPLE, len(hashes))
    if size < 2:
        return 0.0
    sample = hashes[np.random.default_rng(0).choice(len(hashes), size, replace=False)]
    agree = np.zeros((size, size), np.int8)
    for low, width in _cut(bits, bands):
        band = sample >> np.uint64(low) & np.uint64(2**width - 1)
        agree += band[:, None] == band
    tables = np.array([comb(agreed, agreeing) for agreed in range(bands + 1)], float)
    return float((tables[agree].sum() - size * tables[bands]) / (size * (size - 1)))


def _cut(bits: int, bands: int) -> list[tuple[int, int]]:
    """The lowest bit and the width of each band, all as wide as can be."""
    ends = [bits * band // bands for band in range(bands + 1)]
    return [(low, high - low) for low, high in pairwise(ends)]


def _differ_in_all(differing: Hashes, bands: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Whether some bit of every band is set."""
    found = np.ones(len(differing), bool)
    for low, width in bands:
        found &= (differing >> np.uint64(low) & np.uint64(2**width - 1)) != 0
    return found


def _layout(cut: Sequence[tuple[int, int]], chosen: Sequence[int]) -> tuple[list[Move], int]:
    """Where each band goes so that the chosen ones come first, and how many bits the others have."""
    moves, top = list[Move](), sum(width for _, width in cut)
    for band in (*chosen, *(band for band in range(len(cut)) if band not in chosen)):
        low, width = cut[band]
        top -= width
        moves.append(Move(low, width, top))
    return moves, moves[len(chosen) - 1].to


def _near_in_order(hashes: Hashes, moves: Sequence[Move], other_bits: int, distance: int) -> Pairs:
    """The near pairs among hashes whose first bands, once moved, are equal."""
    moved = np.empty_like(hashes)
    for start in range(0, len(hashes), CHUNK):
        moved[start : start + CHUNK] = _move(hashes[start : start + CHUNK], moves)
    moved.sort()
    back = [Move(move.to, move.width, move.low) for move in moves]
    start = 0
    while start < len(moved):
        end = _end_of_run(moved, min(start + CHUNK, len(moved)) - 1, other_bits)
        for left, right in _near_in_runs(moved[start:end], other_bits, distance):
            yield _move(left, back), _move(right, back)
        start = end


def _move(hashes: Hashes, moves: Sequence[Move]) -> Hashes:
    """The same hashes with their bands in other places."""
    moved = np.zeros_like(hashes)
    for low, width, to in moves:
        moved |= (hashes >> np.uint64(low) & np.uint64(2**width - 1)) << np.uint64(to)
    return moved


def _end_of_run(ordered: Hashes, place: int, other_bits: int) -> int:
    """The end of the run that this place is in."""
    last = int(ordered[place]) | (2**other_bits - 1)
    return int(np.searchsorted(ordered, np.uint64(last), side="right"))


def _near_in_runs(ordered: Hashes, other_bits: int, distance: int) -> Pairs:
    """The near pairs within runs of sorted hashes: of short runs at once, of each long one by itself."""
    bands = ordered >> np.uint64(other_bits)
    starts = np.flatnonzero(np.concatenate([[True], bands[1:] != bands[:-1]]))
    lengths = np.diff(starts, append=len(ordered))
    followers = np.repeat(starts + lengths - 1, lengths) - np.arange(len(ordered))
    long = lengths > LONG_RUN
    followers[np.repeat(long, lengths)] = 0
    yield from _compare(ordered, followers, distance)
    for start, length in zip(starts[long].tolist(), lengths[long].tolist(), strict=True):
        run = ordered[start : start + length]
        low = np.uint64(2**other_bits - 1)
        for left, right in near_hashes(run & low, distance, other_bits):
            yield left | run[0] & ~low, right | run[0] & ~low


def _compare(hashes: Hashes, followers: NDArray[np.int64], distance: int) -> Pairs:
    """Each hash with so many that follow it, in as many steps as any has followers."""
    step, places = 1, np.flatnonzero(followers)
    while len(places):
        left, right = hashes[places], hashes[places + step]
        near = _within(left ^ right, distance)
        if near.any():
            yield left[near], right[near]
        step += 1
        places = places[followers[places] >= step]


def _within(differing: Hashes, distance: int) -> NDArray[np.bool_]:
    """Whether at most so many bits are set: none is left once that many were cleared (P. Wegner, 1960)."""
    for _ in range(distance):
        differing = differing & (differing - np.uint64(1))
    return np.asarray(differing == 0)
