"""TIIF-Bench's 39 types in nine groups, its reader of a judge's reply, and its figures.

Reimplemented from the behaviour of `eval/eval_with_vlm.py`, `summary_results.py` and
`summary_dimension_results.py` of https://github.com/A113N-W3I/TIIF-Bench.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from sar_eval.documents import convert, shorten
from sar_eval.errors import BadInput
from sar_eval.types import Json

LENGTHS = ("short", "long")
_SPACE = ("2d", "3d")
_REASONING = ("numeracy", "negation", "differentiation", "comparison")
# The nine groups that weigh the same, and their types.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "basic attribute": ("shape+color", "color+texture", "texture+color", "shape+texture"),
    "basic relation": ("2d_spatial_relation", "3d_spatial_relation", "action+2d", "action+3d"),
    "basic reasoning": _REASONING,
    "advanced attribute+relation": (
        *("action+color", "action+texture"),
        *(f"{name}+{space}" for name in ("color", "shape", "texture") for space in _SPACE),
    ),
    "advanced attribute+reasoning": tuple(
        f"{name}+{attribute}" for name in _REASONING for attribute in ("color", "texture")
    ),
    "advanced relation+reasoning": tuple(f"{name}+{space}" for name in _REASONING for space in _SPACE),
    "text": ("text",),
    "style": ("style",),
    "real world": ("real_world",),
}
TYPES = {name: group for group, names in GROUPS.items() for name in names}
DIGITS = 4  # of an accuracy, which travels through a table as text
_ANSWER = re.compile(r"(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked about a picture: questions, and the answer that each should get.

    Where the suite gives fewer answers than questions, the last questions do not count.
    """

    type: str
    length: Literal["short", "long"]
    questions: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many questions count."""
        return min(len(self.questions), len(self.answers))

    def right(self, answers: Sequence[bool]) -> int:
        """How many of these answers, one for each question, are the suite's."""
        wanted = (answer.strip().lower() for answer in self.answers)
        given = ("yes" if answer else "no" for answer in answers)
        return sum(one == other for one, other in zip(wanted, given, strict=False))


def read_item(checks: Json, where: str) -> Item:
    """What a prompt's `checks` ask: `type`, `length`, `questions` and `answers`.

    Raises:
        BadInput: a field is missing or of the wrong kind, or the type is none of TIIF-Bench's.
    """
    item = convert(checks, Item, f"{where}: checks")
    if not item.total:
        raise BadInput(f"{where}: no questions with their answers")
    if item.type not in TYPES:
        raise BadInput(f"{where}: type {shorten(item.type)} is none of TIIF-Bench's, as 'action+2d'")
    return item


def read_officially(reply: str, number: int) -> tuple[bool, ...] | None:
    """The script's answers: of the lines that begin with yes or no as a word, in any case, in their order.

    Other lines are passed over, so that `1. yes` is no answer, and `No. 1: yes` is a no.

    Args:
        reply: the judge's text.
        number: of questions.

    Returns:
        None if there are not as many, for which the script asks again.
    """
    lines = (line.strip() for line in reply.strip().split("\n"))
    answers = tuple(found[1].lower() == "yes" for line in lines if (found := _ANSWER.match(line)))
    return answers if len(answers) == number else None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Questions answered right about all pictures of a type, and all questions."""

    right: int
    total: int

    @property
    def rounded(self) -> float:
        """The share as the script's table has it."""
        return round(self.right / self.total, DIGITS)


def weights_of(types: Sequence[str]) -> dict[str, float]:
    """What each of these types weighs in the mean of the groups' means; absent ones do not count.

    The weights add up to 1.
    """
    present = {group: [name for name in names if name in types] for group, names in GROUPS.items()}
    groups = [names for names in present.values() if names]
    return {name: 1 / (len(groups) * len(names)) for names in groups for name in names}


def overall_officially(accuracies: Mapping[str, Accuracy], *, digits: bool = True) -> float:
    """The script's figure of one length: the mean over the nine groups of their types' mean accuracies.

    Args:
        accuracies: by type, at least one.
        digits: whether an accuracy is rounded before it is averaged, as in the script.
    """
    weights = weights_of(list(accuracies))
    return fsum(
        weights[name] * (found.rounded if digits else found.right / found.total)
        for name, found in accuracies.items()
    )
