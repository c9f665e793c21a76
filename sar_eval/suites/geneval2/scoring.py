"""Soft-TIFA: arithmetic and geometric means of the probabilities of expected answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

SKILLS = ("object", "attribute", "count", "position", "verb")
ATOMICITIES = range(3, 11)


def arithmetic_mean(scores: Sequence[float]) -> float:
    """Sum by number."""
    return math.fsum(scores) / len(scores)


def geometric_mean(scores: Sequence[float]) -> float:
    """exp of the mean logarithm; 0 if any score is 0, as in SciPy."""
    if min(scores) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, scores)) / len(scores))
