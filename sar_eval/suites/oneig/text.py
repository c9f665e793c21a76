"""OneIG-Bench's rendered text: edit distance, complete texts, matched words, and the score made of them.

Reimplemented from the behaviour of `scripts/text/text_score.py` and `text_utils.py` of
https://github.com/OneIG-Bench/OneIG-Benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sar_eval.documents import convert
from sar_eval.suites.rendered_text import (
    ARTEFACT,
    NO_TEXT,
    edit_distance,
    has_chinese,
    kept_characters,
    matched,
    units,
    with_single_blanks,
    without_blanks,
)
from sar_eval.types import Json

# Characters: a mean edit distance of as many, or more, scores 0 where nothing else is right.
LARGEST_DISTANCE: Mapping[str, int] = {"en": 100, "zh": 50}


@dataclass(frozen=True, slots=True)
class Key:
    """The text that a picture must show, and the language of its suite."""

    text: str
    language: Literal["en", "zh"]

    @property
    def largest(self) -> int:
        """The edit distance that counts as far as any."""
        return LARGEST_DISTANCE[self.language]


@dataclass(frozen=True, slots=True)
class Reading:
    """A picture's text against its key.

    Attributes:
        distance: Levenshtein's, in characters.
        matched, units: words of the key that were read, and all of them; characters of a Chinese key.
    """

    distance: int
    matched: int
    units: int

    @property
    def complete(self) -> bool:
        """Whether the text is the key."""
        return self.distance == 0

    @property
    def share(self) -> float:
        """Of the key's units that were read; 0 if it has none."""
        return self.matched / self.units if self.units else 0.0


def read_key(checks: Json, where: str) -> Key:
    """The key in a prompt's `checks`: `text` and `language`.

    Raises:
        BadInput: there is none, or the language is another one.
    """
    return convert(checks, Key, f"{where}: checks")


def normalised(text: str, *, chinese: bool) -> str:
    """What is compared: without white space in Chinese, else with single blanks; the case counts."""
    kept = kept_characters(text)
    return without_blanks(kept) if chinese else with_single_blanks(kept)


def normalised_officially(text: str) -> str:
    """The same, where each text says for itself whether it is Chinese."""
    return normalised(text, chinese=has_chinese(kept_characters(text)))


def cleaned_officially(reply: str) -> str:
    """The reply as the script cleans it: the phrase without its full stop stays."""
    return reply.replace(ARTEFACT, "").replace(f"{NO_TEXT}.", "")


def read_officially(key: str, reply: str) -> Reading:
    """The script's figures of one picture."""
    return _compare(normalised_officially(key), normalised_officially(cleaned_officially(reply)))


def texts_officially(grids: Sequence[Sequence[str] | None]) -> list[Sequence[str]]:
    """The readings that the script scores for each prompt, given those of its grid.

    A prompt whose pictures are all black is scored by the readings of the one before it: the script does
    not empty its list. The fold, which is given pictures and not grids, leaves such a prompt out.

    Args:
        grids: by prompt, the readings of the pictures that are not black; None without a file, or with
            several.

    Raises:
        ValueError: the first grid is black, at which the script ends.
    """
    scored: list[Sequence[str]] = []
    last: Sequence[str] | None = None
    for grid in grids:
        if grid is None:
            scored.append(())
            continue
        last = grid or last
        if last is None:
            raise ValueError("the first grid is black: there are no readings yet")
        scored.append(last)
    return scored


def read(key: Key, text: str) -> Reading:
    """Ours, of the text that the judge read: the key says whether both are Chinese."""
    chinese = has_chinese(kept_characters(key.text))
    return _compare(normalised(key.text, chinese=chinese), normalised(text, chinese=chinese))


def _compare(wanted: str, found: str) -> Reading:
    chinese = has_chinese(wanted)
    key = units(wanted, chinese)
    return Reading(edit_distance(wanted, found), matched(key, units(found, chinese)), len(key))


def combined(distance: float, complete: float, share: float, largest: int) -> float:
    """The text score, 0 to 1: of three means, as the script forms it, or of one picture."""
    return 1 - min(largest, distance) * (1 - complete) * (1 - share) / largest
