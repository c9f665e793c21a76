"""Whether two numbers of the same pictures go together: Spearman's rho, and the AUC of pass and fail.

Both come of ranks, where ties have their mean rank, so both are exact with ties. Intervals resample the
prompts, as pictures of one prompt are alike (Efron & Tibshirani 1993, ch. 8), and are the hull of two: the
percentile bootstrap's, and Student's on Fisher's scale with the bootstrap's standard error, which is right
for few prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

RESAMPLES = 1_000
LEAST_RESAMPLES = 200  # of very many pictures, whose intervals are short
RANKED = 2_500_000  # pictures ranked in all resamples together: a fraction of a second
CHUNK_SIZE = 125_000  # counts held at once: what fits into a cache
LEAST_PROMPTS = 10  # of fewer, intervals say too little of other prompts
LARGEST = 1 - 1e-9  # correlation on Fisher's scale, where 1 is infinite
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # of how often each picture was drawn [R, B]: -1 to 1 of each [B]


@dataclass(frozen=True, slots=True)
class Correlation:
    """A measure of association with its 95 % interval.

    Attributes:
        value: None if one of the two is the same for all pictures.
        low, high: None if prompts are too few, or resamples do not differ or have no value.
        pictures, prompts: that have both numbers.
    """

    value: float | None
    low: float | None
    high: float | None
    pictures: int
    prompts: int


def spearman(first: Floats, second: Floats, prompts: NDArray[np.int64], seed: int = 0) -> Correlation:
    """Spearman's rank correlation: Pearson's of the ranks (Spearman 1904).

    Args:
        first, second: of each picture [R]; NaN for none, which leaves the picture out.
        prompts: number of each picture's prompt [R].
        seed: of the resampling.
    """
    both = ~(np.isnan(first) | np.isnan(second))
    ranks = _Ranks.of(first[both]), _Ranks.of(second[both])

    def statistic(counts: Floats) -> Floats:
        half = (counts.sum(axis=0) + 1) / 2  # the mean rank
        one, other = (of.ranks(counts) - half for of in ranks)
        spreads = _sum(counts, one, one) * _sum(counts, other, other)
        return _divide(_sum(counts, one, other), np.sqrt(spreads))

    return _with_interval(statistic, prompts[both], seed)


def auc(scores: Floats, passed: Floats, prompts: NDArray[np.int64], seed: int = 0) -> Correlation:
    """How probably a picture that passed has the higher score than one that failed; a tie counts half.

    The area under the ROC curve, from the Mann-Whitney statistic (Hanley & McNeil 1982): 0.5 if scores say
    nothing of the verdict. Its interval is that of Somers' D, 2 AUC - 1, which is a correlation.

    Args:
        scores: of each picture [R]; NaN for none, which leaves the picture out.
        passed: 1 or 0 [R]; NaN without a verdict, which leaves the picture out.
        prompts: number of each picture's prompt [R].
        seed: of the resampling.
    """
    both = ~(np.isnan(scores) | np.isnan(passed))
    ranks, has_passed = _Ranks.of(scores[both]), (passed[both] == 1).astype(float)[:, None]

    def somers_d(counts: Floats) -> Floats:
        drawn = counts * has_passed
        positive = drawn.sum(axis=0)
        wins = (drawn * ranks.ranks(counts)).sum(axis=0) - positive * (positive + 1) / 2
        return 2 * _divide(wins, positive * (counts.sum(axis=0) - positive)) - 1

    found = _with_interval(somers_d, prompts[both], seed)
    value, low, high = (None if d is None else (d + 1) / 2 for d in (found.value, found.low, found.high))
    return Correlation(value, low, high, found.pictures, found.prompts)


@dataclass(frozen=True, slots=True, eq=False)
class _Ranks:
    """Sorts values once; ranks of resamples follow from how often each picture was drawn.

    Attributes:
        order: of the pictures by value [R].
        starts: first place in that order of each different value [V].
        kind: number of each picture's value [R].
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    kind: NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats) -> _Ranks:
        order = np.argsort(values, kind="stable")
        _, starts, kind = np.unique(values[order], return_index=True, return_inverse=True)
        by_picture = np.empty(len(values), np.int64)
        by_picture[order] = kind
        return cls(order, starts, by_picture)

    def ranks(self, counts: Floats) -> Floats:
        """The mean rank of each picture's value among those drawn, from 1 [R, B] -> [R, B]."""
        if not len(self.starts):
            return counts
        sizes = counts[self.order]
        if len(self.starts) < len(sizes):
            sizes = np.add.reduceat(sizes, self.starts, axis=0)
        return np.asarray((np.cumsum(sizes, axis=0) - (sizes - 1) / 2)[self.kind])


def _sum(counts: Floats, one: Floats, other: Floats) -> Floats:
    """Of the products, over the pictures drawn [B]."""
    return np.asarray(np.einsum("rb,rb,rb->b", counts, one, other))


def _divide(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    out = np.full(len(above), np.nan)
    return np.asarray(np.divide(above, below, out=out, where=below > 0))


def _with_interval(statistic: Statistic, prompts: NDArray[np.int64], seed: int) -> Correlation:
    _, prompt_of, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    value = float(statistic(np.ones((len(prompts), 1)))[0])
    known = value if np.isfinite(value) else None
    low = high = None
    if known is not None and len(sizes) >= LEAST_PROMPTS:
        found = [statistic(counts) for counts in _resamples(prompt_of, len(sizes), seed)]
        low, high = _interval(known, np.concatenate(found), len(sizes))
    return Correlation(known, low, high, len(prompts), len(sizes))


def _interval(value: float, found: Floats, prompts: int) -> tuple[float | None, float | None]:
    """The hull of the two intervals; None and None where resamples say nothing."""
    found = found[np.isfinite(found)]
    if len(found) < LEAST_RESAMPLES / 2 or np.ptp(found) == 0:
        return None, None
    low, high = np.percentile(found, [2.5, 97.5]).tolist()
    fisher = np.arctanh(np.clip([value, *found], -LARGEST, LARGEST))
    spread = float(stdtrit(prompts - 1, 0.975)) * float(fisher[1:].std(ddof=1))
    limits = np.tanh([fisher[0] - spread, fisher[0] + spread]).tolist()
    return min(value, low, limits[0]), max(value, high, limits[1])


def _resamples(prompt_of: NDArray[np.int64], prompts: int, seed: int) -> Iterator[Floats]:
    """How often each picture is in resamples of so many prompts, some resamples at a time [R, B]."""
    rng = np.random.default_rng(seed)
    left = int(np.clip(RANKED // len(prompt_of), LEAST_RESAMPLES, RESAMPLES))
    at_once = max(1, CHUNK_SIZE // len(prompt_of))
    while left > 0:
        number = min(at_once, left)
        left -= number
        counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), number)
        yield counts.T.astype(float, order="C")[prompt_of]
