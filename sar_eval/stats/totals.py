"""From draws to prompts: the unit that a suite samples, and that statistics resample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sar_eval.measures import Bounds, Combine, Measure, Stratum

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Score and weight of each prompt of a stratum, whose mean is the ratio of their sums.

    Attributes:
        sums: [P].
        sizes: [P].
        share: weight of the stratum in the figure (see `Measure.shares`).
    """

    sums: Floats
    sizes: Floats
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def mean(self) -> float:
        """The stratum's."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def is_constant(self) -> bool:
        """Whether all prompts have the same mean (to 1e-12, as sums are rounded)."""
        return bool(np.ptp(self.sums / self.sizes) < 1e-12)

    def on_unit(self, bounds: Bounds) -> Totals:
        """The same with scores moved from their bounds to 0 and 1."""
        low, high = bounds
        return Totals((self.sums - low * self.sizes) / (high - low), self.sizes, self.share)


def totals_of(measure: Measure) -> list[Totals]:
    """The totals of each stratum that has a row."""
    return [
        prompt_totals(stratum, measure.combine, measure.shares.get(stratum.task, 1.0))
        for stratum in measure.strata
        if len(stratum.prompts)
    ]


def prompt_totals(stratum: Stratum, combine: Combine, share: float = 1.0) -> Totals:
    """Score and weight of each prompt (see `Measure.combine`). Sums are exact before they are rounded."""
    starts = stratum.starts[:-1]
    if combine in ("max", "min"):
        best = np.maximum if combine == "max" else np.minimum
        means = stratum.sums / stratum.weights
        return Totals(best.reduceat(means, starts), np.ones(len(starts)), share)
    values = stratum.sums.tolist()
    sums = np.array([math.fsum(values[a:b]) for a, b in pairwise(stratum.starts.tolist())])
    weights = np.add.reduceat(stratum.weights, starts)
    if combine == "sum":
        return Totals(sums, weights, share)
    return Totals(sums / weights, np.ones(len(weights)), share)


def mean_of(totals: Sequence[Totals]) -> float:
    """The mean over the strata of their means, each by its share."""
    return float(over_tasks([task.mean for task in totals], [task.share for task in totals]))


def over_tasks(values: Sequence[float] | Sequence[Floats], shares: Sequence[float]) -> Floats:
    """The mean over tasks of what each has, weighted by their shares [T, ...] -> [...]."""
    weighted = [weight * np.asarray(v) for weight, v in zip(relative(shares), values, strict=True)]
    return np.asarray(np.mean(weighted, axis=0))


def relative(shares: Sequence[float]) -> list[float]:
    """Shares with a mean of 1: exactly 1 each where tasks weigh the same."""
    if min(shares) == max(shares):
        return [1.0] * len(shares)
    mean = math.fsum(shares) / len(shares)
    return [share / mean for share in shares]


def bounds_of(measure: Measure) -> Bounds | None:
    """The bounds of the scores, None if there are none, or a score is not within them."""
    if measure.is_effect or measure.bounds is None:
        return None
    low, high = measure.bounds
    inside = [((s.sums >= low * s.weights) & (s.sums <= high * s.weights)).all() for s in measure.strata]
    return measure.bounds if all(inside) else None


def span_of(*measures: Measure) -> float | None:
    """The largest difference that scores of these measures can have, None if there is no limit."""
    spans = [None if bounds is None else bounds[1] - bounds[0] for bounds in map(bounds_of, measures)]
    known = [span for span in spans if span is not None]
    return max(known) if known and len(known) == len(spans) else None
