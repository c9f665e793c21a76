"""Where a series of checkpoints changes its level: segmentation with a bound on false alarms.

A *contrast* compares as many checkpoints before a place with as many from there on: of each prompt, the
mean score in the later ones less that in the earlier ones. Single neighbours are the shortest; longer ones
find many small steps in one direction, too (multiscale moving sums: Eichinger and Kirch, Bernoulli 24,
2018; Cho and Kirch, Annals of the Institute of Statistical Mathematics 74, 2022). Both sides have one
length, as only then a prompt's difference is symmetric about 0 if nothing changed, also with skewed scores.

All contrasts are tested at once. Without a change a prompt's differences are as likely as their negatives,
so their signs are flipped, prompt by prompt and in all contrasts together (Nichols and Holmes, Human Brain
Mapping 15, 2002), and each contrast is held against the largest statistic of all (max-T: Westfall and
Young, Resampling-Based Multiple Testing, 1993). So at most 5 % of histories without a change have one that
is called significant, however many checkpoints there are and however alike neighbours are. The significant
contrast of the largest statistic splits the series, and then so do those that lie within the two parts
(binary segmentation: Scott and Knott, Biometrics 30, 1974).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_eval.stats.totals import relative

ALPHA = 0.05
FLIPS = 9_999
CHUNK = 250  # flips at a time: 8 MB of signs for 4,096 prompts
MAX_UNITS = 4_096  # whose signs are flipped: of more prompts, neighbours are flipped together
ROUNDING = 1e-12  # of scores and of sums of squares, relative to the largest


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The levels of two stretches of a series differ: positions [first, at) and [at, end), equally many.

    Attributes:
        first, at, end: positions in the series, counted from 0.
        difference: later less earlier mean, in the scores' unit.
        low, high: 95 % interval, simultaneous over all contrasts (as p is).
        p: adjusted for all contrasts.
    """

    first: int
    at: int
    end: int
    difference: float
    low: float
    high: float
    p: float


Contrast = tuple[int, int, int]  # first, at, end


def find_change_points(
    scores: NDArray[np.float64], tasks: NDArray[np.int64], seed: int = 0, shares: Sequence[float] = ()
) -> list[ChangePoint]:
    """The significant changes of level, in the order of the series.

    Args:
        scores: of every prompt at every checkpoint [P, K].
        tasks: number of each prompt's task [P], 0 up to the number of tasks; the level of a checkpoint is
            the mean of its tasks' means.
        seed: of the sign flips.
        shares: weight of each task in the level; none if all weigh the same.
    """
    length = scores.shape[1]
    contrasts = balanced_contrasts(length)
    if not contrasts or len(scores) < 2:
        return []
    return _segment(_test(_units(scores, tasks, shares), contrasts, seed), 0, length)


def balanced_contrasts(length: int) -> list[Contrast]:
    """At every place those of 1, 2, 3, 4, 6, 8, 11, ... checkpoints a side, and of all that there are."""
    found = []
    for at in range(1, length):
        room = min(at, length - at)
        sizes = {round(2 ** (n / 2)) for n in range(2 * room.bit_length() + 1)} | {room}
        found += [(at - size, at, at + size) for size in sorted(sizes) if size <= room]
    return found


def _weights(contrast: Contrast, length: int) -> NDArray[np.float64]:
    """Of each checkpoint in a contrast's difference: they sum to 0."""
    first, at, end = contrast
    weights = np.zeros(length)
    weights[first:at], weights[at:end] = -1 / (at - first), 1 / (end - at)
    return weights


def _units(
    scores: NDArray[np.float64], tasks: NDArray[np.int64], shares: Sequence[float]
) -> NDArray[np.float64]:
    """What each unit adds to each checkpoint's level, less the same for all checkpoints [U, K]."""
    numbers = np.bincount(tasks)
    centred = scores - scores.mean(axis=1, keepdims=True)
    centred[np.abs(centred) <= ROUNDING * np.abs(scores).max()] = 0  # the same at all checkpoints
    parts: NDArray[np.float64] = centred / (numbers[tasks] * np.count_nonzero(numbers))[:, None]
    if shares:
        parts *= np.array(relative(shares))[tasks][:, None]
    together = -(-len(scores) // MAX_UNITS)
    if together > 1:
        order = np.argsort(tasks, kind="stable")
        parts = np.add.reduceat(parts[order], np.arange(0, len(scores), together), axis=0)
    return parts


@dataclass(frozen=True, slots=True)
class _Tested:
    change: ChangePoint
    statistic: float


def _test(units: NDArray[np.float64], contrasts: Sequence[Contrast], seed: int) -> list[_Tested]:
    weights = np.array([_weights(contrast, units.shape[1]) for contrast in contrasts]).T
    squares = _squares(units, weights)
    scaled = weights / np.sqrt(np.where(squares > 0, squares, np.inf))
    statistics = np.abs(units.sum(axis=0) @ scaled)
    largest = np.sort(_largest_flipped(units, scaled, seed))
    larger = len(largest) - np.searchsorted(largest, statistics * (1 - 1e-9))
    p = (1 + larger) / (1 + len(largest))  # Phipson and Smyth 2010: never 0
    differences = units.sum(axis=0) @ weights
    spread = _critical_t(largest, len(units)) * _standard_errors(squares, differences, len(units))
    columns = (found.tolist() for found in (differences, differences - spread, differences + spread, p))
    changes = [
        ChangePoint(*contrast, *numbers)
        for contrast, numbers in zip(contrasts, zip(*columns, strict=True), strict=True)
    ]
    return list(map(_Tested, changes, statistics.tolist()))


def _squares(units: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over units of each contrast's squared differences, which no flip of signs changes [C]."""
    products = units.T @ units
    squares: NDArray[np.float64] = np.einsum("kc,kc->c", weights, products @ weights)
    squares[squares < ROUNDING * np.trace(products)] = 0  # no unit differs, but for rounding
    return squares


def _largest_flipped(
    units: NDArray[np.float64], scaled: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """The largest statistic of all contrasts under each of `FLIPS` random flips of the units' signs."""
    rng, found = np.random.default_rng(seed), []
    for start in range(0, FLIPS, CHUNK):
        shape = min(CHUNK, FLIPS - start), len(units)
        signs = rng.integers(0, 2, shape, np.int8) * 2.0 - 1.0
        found.append(np.abs(signs @ units @ scaled).max(axis=1))
    return np.concatenate(found)


def _critical_t(largest: NDArray[np.float64], number: int) -> float:
    """The 95 % quantile of the largest statistic, as a multiple of the standard error.

    The statistic divides by the root of the sum of squares about 0, a t statistic by that about the mean.
    """
    quantile = float(np.quantile(largest, 1 - ALPHA))
    rest = max(number - quantile**2, 1e-9)  # 0 for a handful of prompts, which no p up to 5 % comes of
    return quantile * math.sqrt((number - 1) / rest)


def _standard_errors(
    squares: NDArray[np.float64], differences: NDArray[np.float64], number: int
) -> NDArray[np.float64]:
    """Of the contrasts' differences [C], from the spread of the units about their mean."""
    about_mean = np.maximum(0.0, squares - differences**2 / number)
    errors: NDArray[np.float64] = np.sqrt(about_mean * number / (number - 1))
    return errors


def _segment(tested: Sequence[_Tested], first: int, end: int) -> list[ChangePoint]:
    """Binary segmentation: the largest significant contrast within [first, end), then its two parts."""
    inside = [t for t in tested if t.change.p <= ALPHA and first <= t.change.first and t.change.end <= end]
    if not inside:
        return []
    best = max(inside, key=lambda t: t.statistic).change
    return [*_segment(inside, first, best.at), best, *_segment(inside, best.at, end)]
