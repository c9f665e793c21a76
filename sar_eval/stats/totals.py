"""From draws to prompts: the unit that a suite samples, and that statistics resample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sar_eval.measures import Combine, Measure, Stratum


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Score and weight of each prompt of a stratum, whose mean is the ratio of their sums.

    Attributes:
        sums: [P].
        sizes: [P].
    """

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]

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


def totals_of(measure: Measure) -> list[Totals]:
    """The totals of each stratum that has a row."""
    return [prompt_totals(s, measure.combine) for s in measure.strata if len(s.prompts)]


def prompt_totals(stratum: Stratum, combine: Combine) -> Totals:
    """Score and weight of each prompt (see `Measure.combine`). Sums are exact before they are rounded."""
    starts = stratum.starts[:-1]
    if combine in ("max", "min"):
        best = np.maximum if combine == "max" else np.minimum
        means = stratum.sums / stratum.weights
        return Totals(best.reduceat(means, starts), np.ones(len(starts)))
    values = stratum.sums.tolist()
    sums = np.array([math.fsum(values[a:b]) for a, b in pairwise(stratum.starts.tolist())])
    weights = np.add.reduceat(stratum.weights, starts)
    return Totals(sums, weights) if combine == "sum" else Totals(sums / weights, np.ones(len(weights)))


def mean_of(totals: Sequence[Totals]) -> float:
    """The unweighted mean over the strata of their means."""
    return float(np.mean([task.mean for task in totals]))


def are_shares(measure: Measure) -> bool:
    """Whether all scores lie in [0, 1]."""
    if measure.is_effect:
        return False
    return all(bool(((s.sums >= 0) & (s.sums <= s.weights)).all()) for s in measure.strata)
