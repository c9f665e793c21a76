"""What the judge `rubric` was told about each picture, for the folds that read it; and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

from sar_eval.errors import BadInput
from sar_eval.measures import Measure, Row, stratum
from sar_eval.types import Json, Prompt, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """The replies about one picture.

    Attributes:
        index: of the draw within its prompt.
        replies: the judge's text of every try.
        values: what was read from the last one, by name; None if no try could be read.
    """

    index: int
    replies: tuple[str, ...]
    values: Mapping[str, Json] | None = None

    @property
    def last(self) -> str:
        """The last try's text."""
        return self.replies[-1] if self.replies else ""


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """A prompt with its pictures in the order of their indices, and the indices that have no score.

    A picture without a score may be in both: the judge's replies are there, and none could be read.
    """

    prompt: Prompt
    pictures: tuple[Judged, ...] = ()
    missing: tuple[int, ...] = field(default=())

    @property
    def scored(self) -> Iterable[Judged]:
        """The pictures with a score."""
        return (picture for picture in self.pictures if picture.values is not None)


def read_replies(
    prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict], fold: str
) -> tuple[JudgedPrompt, ...]:
    """Every prompt in suite order, those without a picture too.

    Every prompt should have as many pictures as the one with the most: those that it lacks are missing.

    Raises:
        BadInput: a scored verdict is not the judge's that has replies.
    """
    found: dict[str, dict[int, Judged]] = {}
    number = 0
    for key, verdict in verdicts.items():
        prompt_id, _, index = key.rpartition("/")
        number = max(number, int(index) + 1)
        if (judged := _judged(verdict, int(index), fold)) is not None:
            found.setdefault(prompt_id, {})[int(index)] = judged
    return tuple(_judged_prompt(prompt, found.get(prompt.id, {}), number) for prompt in prompts)


def _judged_prompt(prompt: Prompt, pictures: Mapping[int, Judged], number: int) -> JudgedPrompt:
    scored = {index for index, picture in pictures.items() if picture.values is not None}
    ordered = tuple(pictures[index] for index in sorted(pictures))
    return JudgedPrompt(prompt, ordered, tuple(i for i in range(number) if i not in scored))


def _judged(verdict: Verdict, index: int, fold: str) -> Judged | None:
    evidence = verdict.evidence if isinstance(verdict.evidence, dict) else {}
    replies, values = evidence.get("replies"), evidence.get("values")
    if isinstance(replies, list) and all(isinstance(reply, str) for reply in replies):
        is_read = verdict.score is not None and isinstance(values, dict)
        if is_read or verdict.score is None:
            return Judged(index, tuple(replies), values if is_read else None)
    if verdict.score is None:
        return None
    raise BadInput(
        f"the verdict on {verdict.key} by judge {verdict.judge!r} has no replies: the fold {fold} reads "
        "verdicts of the judge rubric on this suite; judge the run again"
    )


def bounds_of(
    name: str, rows: Sequence[Row], missing: Sequence[Row], **known: Any
) -> tuple[Measure, ...]:
    """`bounds/NAME/low` and `high`: the figure if the missing pictures were all wrong, or all right.

    Args:
        rows: of the measure.
        missing: one row for each missing picture, whose weight is what it would have; its sum is not read.

    Returns:
        Nothing if nothing is missing. No intervals: which pictures are missing is no sample.
    """
    if not missing:
        return ()
    worst = [(prompt_id, index, 0.0, weight) for prompt_id, index, _, weight in missing]
    best = [(prompt_id, index, weight, weight) for prompt_id, index, _, weight in missing]
    return tuple(
        Measure(f"bounds/{name}/{side}", (stratum(_in_order(rows, added)),), has_interval=False, **known)
        for side, added in (("low", worst), ("high", best))
    )


def effect(name: str, value: float | None, count: int) -> Measure:
    """`quirk/NAME`: what the official figure would gain without a quirk; None if nothing was scored.

    Args:
        name: of the quirk.
        value: the gain.
        count: what is concerned; printed as n. There is no interval: the rules are no sample.
    """
    strata = () if value is None else (stratum([("", 0, value, 1.0)]),)
    return Measure(f"quirk/{name}", strata, count=count, is_effect=True, has_interval=False)


def mean_of_rows(rows: Sequence[Row]) -> float:
    """The mean of their scores, each weighing the same."""
    return fsum(row[2] for row in rows) / fsum(row[3] for row in rows)


def _in_order(rows: Sequence[Row], added: Sequence[Row]) -> list[Row]:
    """All rows, those of a prompt together."""
    by_prompt: dict[str, list[Row]] = {}
    for row in (*rows, *added):
        by_prompt.setdefault(row[0], []).append(row)
    return [row for of_prompt in by_prompt.values() for row in of_prompt]
