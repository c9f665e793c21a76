"""UniGenBench's test points, its reader of a judge's reply, and the names of its dimensions.

Reimplemented from the behaviour of `eval/src/eval_common.py` of
https://github.com/CodeGoat24/UniGenBench.
"""

from __future__ import annotations

import ast
import json
import warnings
from dataclasses import dataclass
from itertools import islice

from sar_eval.documents import convert
from sar_eval.errors import BadInput
from sar_eval.types import Json

MAX_LITERAL = 200_000  # characters between two tags; 4,096 tokens, the judge's most, have fewer
_NO_LITERAL = (ValueError, SyntaxError, MemoryError, RecursionError)


@dataclass(frozen=True, slots=True)
class TestPoints:
    """What is asked about a picture: each point's dimension by its full name, and what to look for."""

    dimensions: tuple[str, ...]
    descriptions: tuple[str, ...]


def read_test_points(checks: Json, where: str) -> TestPoints:
    """The test points in a prompt's `checks`: `dimensions` and `descriptions`, one text for each point.

    Raises:
        BadInput: one is missing or no list of texts, or there are not as many of one as of the other.
    """
    points = convert(checks, TestPoints, f"{where}: checks")
    numbers = [len(points.dimensions), len(points.descriptions)]
    if not numbers[0] or numbers[0] != numbers[1]:
        raise BadInput(f"{where}: {numbers[0]} dimensions and {numbers[1]} descriptions of test points")
    return points


def primary(dimension: str) -> str:
    """The primary dimension: what is before the first hyphen, "Action" of "Action - Animal"."""
    return dimension.partition("-")[0].strip()


def primary_officially(dimension: str) -> str:
    """The script's name of it, which keeps the blank before the hyphen: "Action "."""
    return dimension.partition("-")[0]


def read_officially(reply: str | None, number: int) -> Json:
    """The script's scores: the first `<score>` block as a Python literal, if the first `<analysis>` is one.

    Args:
        reply: the judge's text; None if the request failed.
        number: of test points; both literals must be as long.

    Returns:
        None if the script asks again. Otherwise any literal of that length: a list, but also a text or a
        set.

    Raises:
        TypeError: a literal has no length (a number, None), which the script does not catch.
    """
    analysis, scores = (_literal(tag, reply or "") for tag in ("analysis", "score"))
    if analysis is _UNREADABLE or scores is _UNREADABLE:
        return None
    return scores if len(analysis) == number and len(scores) == number else None


def counted_officially(scores: Json, number: int) -> tuple[bool, ...] | None:
    """Which test points the script counts as right; None if it drops the row.

    The scores pass through JSON into a table and are read back as a Python literal, so that true, false and
    null are lost there. An element is right if it equals 1, also 1.0.

    Raises:
        TypeError: the scores are a set, which JSON does not have, or do not come back as a list.
    """
    try:
        stored = ast.literal_eval(json.dumps({"score": scores}, ensure_ascii=False))["score"]
    except _NO_LITERAL:
        return None
    return tuple(score == 1 for score in islice(stored, number))


class _Unreadable:
    """Between no tags, or no literal there."""


_UNREADABLE = _Unreadable()


def _literal(tag: str, reply: str) -> Json:
    """The Python literal between the first `<tag>` and the first `</tag>` after it."""
    _, opening, rest = reply.partition(f"<{tag}>")
    text, closing, _ = rest.partition(f"</{tag}>")
    if not opening or not closing or len(text) > MAX_LITERAL:
        return _UNREADABLE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape sequence in a text is no concern of ours
            return ast.literal_eval(text.strip())
    except _NO_LITERAL:
        return _UNREADABLE
