"""TIIF-Bench's two figures of rendered words: GNED and recall, from the words that a reader found.

Reimplemented from the behaviour of `eval/cal_gned_and_recall_models.py` of
https://github.com/A113N-W3I/TIIF-Bench, which reads with PaddleOCR. They are no part of its overall
figures, and the judge of our recipe reads no words: give it those of any reader.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from sar_eval.suites.rendered_text import edit_distance

CLOSE = 0.3  # of the longer word's characters; a word within it counts as read


def split_words(lines: Sequence[str]) -> list[str]:
    """Lines in words at each single blank, in small letters; nothing read is one empty word."""
    return " ".join(lines).lower().split(" ")


def distance(first: str, second: str) -> float:
    """The edit distance over the longer word's length, 0 to 1."""
    return edit_distance(first, second) / max(len(first), len(second), 1)


def gned(key: Sequence[str], read: Sequence[str]) -> float:
    """Global normalised edit distance, 0 to 1; 0 is best.

    Words are assigned to each other so that the distances' sum is least; each one left over adds 1. The
    whole is divided by the larger number of words.
    """
    costs = np.array([[distance(one, other) for other in read] for one in key])
    cost = float(costs[linear_sum_assignment(costs)].sum())
    return (cost + abs(len(key) - len(read))) / max(len(key), len(read))


def recall(key: Sequence[str], read: Sequence[str]) -> float:
    """The share of the key's words that, in their order, find a close word that none before them took."""
    left = list(read)
    found = 0
    for word in key:
        close = next((i for i, other in enumerate(left) if distance(word, other) <= CLOSE), None)
        if close is not None:
            del left[close]
            found += 1
    return found / len(key)
