"""A text that should stand in a picture against the one that was read there: what counts, units, distances.

OneIG-Bench (arXiv 2506.07977, `text_utils.py`) and LongText-Bench (X-Omni, arXiv 2507.22058,
`summary_scores.py`) keep the same characters and count the same units; the rest each does its own way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

# What an optical character reader that is a chat model writes besides the text, or in place of it.
NO_TEXT = "No text recognized"
ARTEFACT = "addCriterion"

_FRENCH = "àâäéèêëîïôöùûüç"
_DROPPED = re.compile(rf"[^\u4e00-\u9fa5a-zA-Z0-9\s{_FRENCH}{_FRENCH.upper()}]")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_BLANKS = re.compile(r"\s+")


def kept_characters(text: str) -> str:
    """The text's Chinese characters, Latin letters (accents: French ones), digits and white space."""
    return _DROPPED.sub("", text)


def has_chinese(text: str) -> bool:
    """Whether there is any Chinese character."""
    return _CHINESE.search(text) is not None


def without_blanks(text: str) -> str:
    """The text without white space, as Chinese is compared."""
    return _BLANKS.sub("", text)


def with_single_blanks(text: str) -> str:
    """The text with one blank for each run of white space, and none around, as words are compared."""
    return _BLANKS.sub(" ", text).strip()


def units(text: str, chinese: bool) -> Sequence[str]:
    """Characters of Chinese, else words."""
    return text if chinese else text.split()


def matched(key: Sequence[str], read: Sequence[str]) -> int:
    """How many units of the key were read, each as often as it is there; their order does not count."""
    return (Counter(key) & Counter(read)).total()


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's distance: the least number of characters to insert, delete or replace."""
    codes = np.array([ord(character) for character in second], np.int32)
    positions = np.arange(len(second) + 1)
    row = positions
    for number, character in enumerate(first, 1):
        replaced = row[:-1] + (codes != ord(character))
        best = np.concatenate([[number], np.minimum(replaced, row[1:] + 1)])
        # Insertions run along the row: its entry j is the least of best[i] + j - i over i <= j.
        row = np.minimum.accumulate(best - positions) + positions
    return int(row[-1])
