"""DSG-1k: shares of questions answered yes along question graphs, as we score them and as its script does.

Every figure is 100 times a share, as DSG prints them. docs/dsg.md describes both scorings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sar_eval.measures import Measure, Row
from sar_eval.suites.dpg.answers import (
    each_image,
    mean,
    measure_of,
    quirk_effect,
    read_answers,
    soft_measure,
)
from sar_eval.suites.dpg.scoring import PromptAnswers, score_questions
from sar_eval.suites.dsg.scoring import (
    CATEGORIES,
    DIRECT,
    EXACT_YES,
    QUIRKS,
    UNREAD,
    category_of,
    reference_scores,
)
from sar_eval.types import Prompt, Verdict

# Quirks with an interval: the effects of the others come from a few items that the table singles out.
SAMPLED_QUIRKS = (DIRECT, EXACT_YES)


class DsgFold:
    """Both scorings of the same answers, and the effect of each quirk of the official one."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` and `category/*`; `reference/*`; `quirk/*`.

        With `soft` if every answer has a probability. Only scored draws count; the summary reports
        missing ones.

        Raises:
            BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
        """
        answered = read_answers(prompts, verdicts, "dsg")
        unread = {p.id for p in prompts if isinstance(p.checks, dict) and p.checks.get(UNREAD) is True}
        official = reference_scores(answered, unread)
        return (
            *_measures("", list(_corrected(answered))),
            *soft_measure(answered),
            *_measures("reference/", list(_official(answered, official))),
            *(_effect(name, answered, unread, official) for name in QUIRKS),
        )


def _corrected(answered: Sequence[PromptAnswers]) -> Iterator[Row]:
    """Every image's share of questions that are answered yes with all their ancestors."""
    for prompt, index, image in each_image(answered):
        counted = [score.counted for score in score_questions(prompt.questions, image.yes)]
        yield prompt.id, index, mean(counted), 1.0


def _official(answered: Sequence[PromptAnswers], scores: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    """The script's scores by image; the item that it adds has one without an image."""
    for item in answered:
        for index, score in zip(item.indices or (0,), scores.get(item.id, ()), strict=False):
            yield item.id, index, score, 1.0


def _measures(prefix: str, rows: Sequence[Row]) -> Iterator[Measure]:
    """The mean over items, of all and of each category's, in the script's order."""
    yield measure_of(f"{prefix}overall", rows, combine="mean")
    for category in CATEGORIES:
        if found := [row for row in rows if category_of(row[0]) == category]:
            yield measure_of(f"{prefix}category/{category}", found, combine="mean")


def _effect(
    name: str,
    answered: Sequence[PromptAnswers],
    unread: set[str],
    official: Mapping[str, Sequence[float]],
) -> Measure:
    repaired = reference_scores(answered, unread, [quirk for quirk in QUIRKS if quirk != name])
    before, after = ({i: mean(s) for i, s in scores.items()} for scores in (official, repaired))
    return quirk_effect(name, before, after, sampled=name in SAMPLED_QUIRKS)


BENCHMARK = DsgFold
