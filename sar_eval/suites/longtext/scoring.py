"""How much of a long text was read in a picture: as we count, and as LongText-Bench's script does.

Reimplemented from the behaviour of `textbench/evaluate_text_reward.py` and `summary_scores.py` of
https://github.com/X-Omni-Team/X-Omni (Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sar_eval.documents import convert, shorten
from sar_eval.errors import BadInput
from sar_eval.suites.rendered_text import (
    NO_TEXT,
    kept_characters,
    matched,
    units,
    with_single_blanks,
    without_blanks,
)
from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class Key:
    """The text that a picture must show, in its parts, and its language."""

    text: tuple[str, ...]
    language: Literal["en", "zh"]

    @property
    def chinese(self) -> bool:
        """Whether characters are counted, not words."""
        return self.language == "zh"


@dataclass(frozen=True, slots=True)
class Counts:
    """Units of the key, of what was read, and of what both have."""

    matched: int
    key: int
    read: int

    @property
    def recall(self) -> float:
        """The share of the key that was read."""
        return self.matched / self.key

    @property
    def f1(self) -> float:
        """The harmonic mean of the recall, and of the share of what was read that the key has."""
        return 2 * self.matched / (self.key + self.read)


def read_key(checks: Json, where: str) -> Key:
    """The key in a prompt's `checks`: `text`, a list of texts, and `language`.

    Raises:
        BadInput: there is none, or nothing of it counts (only signs, or letters that are not kept).
    """
    key = convert(checks, Key, f"{where}: checks")
    if not normalised(" ".join(key.text), key.chinese).strip():
        raise BadInput(f"{where}: no letter or digit of its text {shorten(list(key.text))} counts")
    return key


def normalised(text: str, chinese: bool) -> str:
    """What is compared: Chinese without white space, its case kept; else single blanks, small letters."""
    kept = kept_characters(text)
    return without_blanks(kept) if chinese else with_single_blanks(kept).lower()


def cleaned_officially(reply: str) -> str:
    """The reply as the script cleans it.

    Each phrase is removed from the reply as it was, so only the last one goes: `addCriterion` stays, and
    so does the sentence without the full stop, as which the question asks for it.
    """
    return reply.replace(f"{NO_TEXT}.", "")


def count(key: Key, text: str) -> Counts:
    """The counts of one picture, of which this text was read."""
    wanted = units(normalised(" ".join(key.text), key.chinese), key.chinese)
    read = units(normalised(text, key.chinese), key.chinese)
    return Counts(matched(wanted, read), len(wanted), len(read))
