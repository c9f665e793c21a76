"""Which draws of a set repeat earlier ones: by exact pixels, by perceptual hash or by stored embedding.

The rule is the same for all: in the order of their keys, a draw is kept unless it is near one that is kept
already. So no two kept draws are near each other, each that goes is near one that stays, and nothing
depends on the order in which pairs are found. Chains do not matter: what is near a draw that went stays.
That is the lexicographically first maximal independent set. Rounds find it as in G. Blelloch, J. Fineman
and J. Shun, "Greedy Sequential Maximal Independent Set and Matching are Parallel on Average", SPAA 2012:
of the undecided draws, those without an undecided neighbour before them stay, and their neighbours go.
Pairs are found anew in each round rather than stored, since a crowd of near-duplicates has very many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sar_eval.synthesis.near_hashes import near_hashes

Kind = TypeVar("Kind", bound=np.generic)
Places = NDArray[np.int64]
Pairs = Iterator[tuple[Places, Places]]
FindPairs = Callable[[Places | slice], Pairs]

ROUNDS = 8  # decide all but long chains of draws, which are then gone through one by one
LAST = np.iinfo(np.int64).max


def repeats_of_equal(values: NDArray[Any]) -> Places:
    """For each of n values in order of their keys, the place of the first that is equal."""
    distinct = _Distinct(values)
    return distinct.spread(distinct.firsts)


def repeats_of_near_hashes(hashes: NDArray[np.uint64], distance: int) -> Places:
    """For each of n hashes in order of their keys, the place of what it repeats; its own if it stays.

    Exact: by the module's rule, with draws near each other that differ in at most `distance` bits.
    """
    distinct = _Distinct[np.uint64](hashes)

    def find_pairs(among: Places | slice) -> Pairs:
        values = distinct.values[among]
        for pair in near_hashes(values, distance):
            left, right = (np.searchsorted(values, side) for side in pair)
            yield (left, right) if isinstance(among, slice) else (among[left], among[right])

    # Equal hashes have the same neighbours, so what decides the first of them decides all.
    return distinct.spread(keep_first(distinct.firsts, find_pairs))


def keep_first(priority: Places, find_pairs: FindPairs) -> Places:
    """What each of n draws repeats, by the module's rule, as that draw's priority; its own if it stays.

    Args:
        priority: `[n]`, all different; the lowest comes first.
        find_pairs: every pair of near draws among those at the given places (in order), in chunks; a pair
            may come more than once and in either order.
    """
    repeating = np.zeros(len(priority), bool)
    paired, undecided = _decide_a_round(priority, slice(None), find_pairs, repeating)
    for _ in range(ROUNDS):
        if not len(undecided):
            break
        _, undecided = _decide_a_round(priority, undecided, find_pairs, repeating)
    _decide_one_by_one(priority, find_pairs(undecided), repeating)
    return _first_kept(priority, find_pairs(paired), repeating)


def _decide_a_round(
    priority: Places, among: Places | slice, find_pairs: FindPairs, repeating: NDArray[np.bool_]
) -> tuple[Places, Places]:
    """Mark the neighbours of those that no neighbour comes before; which have any, which are undecided."""
    paired, blocked = np.zeros(len(priority), bool), np.zeros(len(priority), bool)
    for first, second in _in_order(priority, find_pairs(among)):
        paired[first] = paired[second] = blocked[second] = True
    places = np.flatnonzero(paired)
    for first, second in _in_order(priority, find_pairs(places)):
        repeating[second[~blocked[first]]] = True
    return places, places[(blocked & ~repeating)[places]]


def _decide_one_by_one(priority: Places, pairs: Pairs, repeating: NDArray[np.bool_]) -> None:
    """Mark the neighbours of kept draws in the order of their keys: all before a draw are decided then."""
    found = list(_in_order(priority, pairs))
    if not found:
        return
    first, second = (np.concatenate(side) for side in zip(*found, strict=True))
    order = np.argsort(priority[second], kind="stable")
    for earlier, later in zip(first[order].tolist(), second[order].tolist(), strict=True):
        repeating[later] |= not repeating[earlier]


def _first_kept(priority: Places, pairs: Pairs, repeating: NDArray[np.bool_]) -> Places:
    """The first kept draw that each of the repeating ones is near."""
    kept = np.where(repeating, LAST, priority)
    for first, second in _in_order(priority, pairs):
        told = repeating[second] & ~repeating[first]
        np.minimum.at(kept, second[told], priority[first[told]])
    return kept


def _in_order(priority: Places, pairs: Pairs) -> Pairs:
    """The pairs, each with the draw whose key comes first in front."""
    for left, right in pairs:
        turned = priority[left] > priority[right]
        yield np.where(turned, right, left), np.where(turned, left, right)


class _Distinct(Generic[Kind]):
    """The different ones among n values.

    Attributes:
        values: sorted.
        firsts: the place of the first of each.
    """

    def __init__(self, values: NDArray[Kind]) -> None:
        """Sort the values."""
        self._order = np.argsort(values)
        ordered = values[self._order]
        starts = np.flatnonzero(np.concatenate([[len(values) > 0], ordered[1:] != ordered[:-1]]))
        self._counts = np.diff(starts, append=len(values))
        self.values = ordered[starts]
        self.firsts = np.minimum.reduceat(self._order, starts) if len(starts) else starts

    def spread(self, told: Places) -> Places:
        """What is told of each different value, for each of the n values."""
        spread = np.empty(len(self._order), np.int64)
        spread[self._order] = np.repeat(told, self._counts)
        return spread
