"""What the judge `rubric` was told about each picture, for folds that read it; and which are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, TypeVar

from sar_eval.errors import BadInput
from sar_eval.measures import Measure, Row, stratum
from sar_eval.protocols import scores
from sar_eval.types import Json, Prompt, Verdict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judged:
    """The replies about one picture.

    Attributes:
        index: of the draw within its prompt.
        replies: the judge's text of every try that it answered.
        values: what was read from the last one, by name; None if no try could be read.
    """

    index: int
    replies: tuple[str, ...]
    values: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """A prompt with the pictures that a judge replied about, in the order of their indices."""

    prompt: Prompt
    pictures: tuple[Judged, ...] = ()

    def values(self, name: str, kind: type[T]) -> Iterator[tuple[int, T]]:
        """Index and value of every picture with a score.

        Raises:
            BadInput: a picture has no such value of this kind.
        """
        for picture in self.pictures:
            if picture.values is not None:
                value = picture.values.get(name)
                if not isinstance(value, kind):
                    raise BadInput(
                        f"the verdict on {self.prompt.id}/{picture.index} has no {name!r}: the fold reads "
                        "what the judge of its benchmark's recipe reads; judge the run again"
                    )
                yield picture.index, value


def read_replies(
    prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict], fold: str
) -> tuple[JudgedPrompt, ...]:
    """Every prompt in suite order, those without a picture too.

    Raises:
        BadInput: a scored verdict is not the judge's that has replies.
    """
    found: dict[str, dict[int, Judged]] = {}
    for key, verdict in verdicts.items():
        prompt_id, _, index = key.rpartition("/")
        if (judged := _judged(verdict, int(index), fold)) is not None:
            found.setdefault(prompt_id, {})[int(index)] = judged
    by_prompt = ((prompt, found.get(prompt.id, {})) for prompt in prompts)
    return tuple(JudgedPrompt(prompt, tuple(at[i] for i in sorted(at))) for prompt, at in by_prompt)


def _judged(verdict: Verdict, index: int, fold: str) -> Judged | None:
    evidence = verdict.evidence if isinstance(verdict.evidence, dict) else {}
    tries, values = evidence.get("replies"), evidence.get("values")
    replies = tuple(reply for reply in tries if isinstance(reply, str)) if isinstance(tries, list) else ()
    if verdict.score is None:
        return Judged(index, replies) if replies else None
    if replies and isinstance(values, dict):
        return Judged(index, replies, values)
    raise BadInput(
        f"the verdict on {verdict.key} by judge {verdict.judge!r} has no replies: the fold {fold} reads "
        "verdicts of the judge rubric on this suite; judge the run again"
    )


def missing_pictures(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> list[tuple[str, int]]:
    """Prompt ids and indices of the pictures without a score, in suite order.

    Every prompt should have as many as the one with the most; nothing is missing where there is no verdict.
    """
    scored: dict[str, set[int]] = {}
    number = 0
    for key, score in scores(verdicts):
        prompt_id, _, index = key.rpartition("/")
        number = max(number, int(index) + 1)
        if score is not None:
            scored.setdefault(prompt_id, set()).add(int(index))
    return [
        (prompt.id, index)
        for prompt in prompts
        for index in range(number)
        if index not in scored.get(prompt.id, ())
    ]


def bounds_of(
    name: str, rows: Mapping[str, Sequence[Row]], missing: Mapping[str, Sequence[Row]], **known: Any
) -> tuple[Measure, ...]:
    """`bounds/NAME_at_least` and `_at_most`: the figure if all missing pictures were wrong, or right.

    Args:
        name: of the figure.
        rows: by task.
        missing: by task, one row for each missing picture with the weight that it would have; its sum is
            not read.
        known: further fields of the measure.

    Returns:
        Nothing if nothing is missing. No intervals: which pictures are missing is no sample.
    """
    if not any(missing.values()):
        return ()
    tasks = list(dict.fromkeys((*rows, *missing)))
    measures = []
    for side, share in (("least", 0.0), ("most", 1.0)):
        strata = []
        for task in tasks:
            added = [(at, index, share * weight, weight) for at, index, _, weight in missing.get(task, ())]
            strata.append(stratum(_in_order((*rows.get(task, ()), *added)), task))
        measures.append(Measure(f"bounds/{name}_at_{side}", tuple(strata), has_interval=False, **known))
    return tuple(measures)


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


def _in_order(rows: Sequence[Row]) -> list[Row]:
    """The rows with those of a prompt together."""
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(row[0], []).append(row)
    return [row for of_prompt in by_prompt.values() for row in of_prompt]
