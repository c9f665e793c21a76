"""Scores of pictures, pairs and categories, as the scripts compute them, and without their rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# A category by the part of its lower-cased name in the file, with its official number of pairs.
CATEGORIES = {"overall": 250, "color": 50, "counting": 50, "position": 50, "style": 100, "text": 50}
YES, NO = ("yes", "Yes", "YES"), ("no", "No", "NO")  # pieces of the vocabulary, without a leading blank
DIGITS = 4  # to which the script rounds before it takes roots


def category_of(name: str) -> str | None:
    """The category of a name such as `Color difference`; None for none of them, or several."""
    found = [category for category in CATEGORIES if category in name.lower()]
    return found[0] if len(found) == 1 else None


def official_score(yes: float, no: float) -> float:
    """yes / (yes + no) in float32, rounded to 4 digits; NaN if neither has any probability."""
    with np.errstate(invalid="ignore"):
        ratio = np.float32(yes) / (np.float32(yes) + np.float32(no))
    return round(float(ratio), DIGITS)


def pair_means(scores: Sequence[float]) -> tuple[float, float]:
    """Arithmetic mean, and n-th root of the product, of a pair's scores (of two captions, two pictures)."""
    return math.fsum(scores) / len(scores), math.prod(scores) ** (1 / len(scores))


def is_official(numbers: dict[str, int]) -> bool:
    """Whether there are as many pairs of each category as the script asserts; else it gives no figure."""
    return numbers == CATEGORIES
