"""DPG-Bench: shares of questions answered yes, as we score them and as the official script does.

Every figure is 100 times a share, as DPG publishes them. docs/dpg.md describes both scorings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import NamedTuple

from sar_eval.measures import Measure
from sar_eval.suites.dpg.answers import (
    each_image,
    mean,
    measure_of,
    quirk_effect,
    read_answers,
    soft_measure,
)
from sar_eval.suites.dpg.scoring import (
    EXACT_YES,
    QUIRKS,
    ROW_ORDER,
    PromptAnswers,
    ReferenceScores,
    column_category,
    l1_category,
    reference_scores,
    score_questions,
)
from sar_eval.types import Prompt, Verdict

CATEGORY_ORDER = ("global", "entity", "attribute", "relation", "other")  # of L1 in ELLA's tables
# Quirks with an interval. The effects of the others come from a few prompts that the question file
# singles out, so prompts are not a sample for them.
SAMPLED_QUIRKS = (ROW_ORDER, EXACT_YES)


class Counted(NamedTuple):
    """The score of one question about one image."""

    prompt_id: str
    draw: int
    l1: str
    l2: str
    score: float


class DpgFold:
    """Both scorings of the same answers, and the effect of each quirk of the official one."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, `category/*` (L1) and `detail/*` (L2); `reference/*`; `quirk/*`.

        With `soft` if every answer has a probability. Only scored draws count; the summary reports
        missing ones.

        Raises:
            BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
        """
        answered = read_answers(prompts, verdicts)
        official = reference_scores(answered)
        effects = [_quirk_effect(name, answered, official) for name in QUIRKS]
        return (*_corrected(answered), *_reference(answered, official), *effects)


def _corrected(answered: Sequence[PromptAnswers]) -> list[Measure]:
    """Means over images, and over all images' answers of a category, after zeroing."""
    scores, answers = [], []
    for prompt, index, image in each_image(answered):
        counted = [score.counted for score in score_questions(prompt.questions, image.yes)]
        scores.append((prompt.id, index, mean(counted), 1.0))
        answers += [
            Counted(prompt.id, index, question.category, column_category(question), float(score))
            for question, score in zip(prompt.questions, counted, strict=True)
        ]
    return [measure_of("overall", scores), *soft_measure(answered), *_by_category("", answers)]


def _reference(answered: Sequence[PromptAnswers], official: ReferenceScores) -> list[Measure]:
    """Mean over prompts of their means over images; categories as in the script, of the last image."""
    indices = {prompt.id: prompt.indices for prompt in answered}
    rows = [
        (prompt_id, index, score, 1.0)
        for prompt_id, images in official.scores.items()
        for index, score in zip(indices[prompt_id], images, strict=True)
    ]
    answers = [
        Counted(prompt_id, indices[prompt_id][-1], l1_category(l2), l2, float(yes))
        for prompt_id, categories in official.categories.items()
        for l2, yes in categories
    ]
    overall = measure_of("reference/overall", rows, combine="mean", count=len(rows))
    return [overall, *_by_category("reference/", answers)]


def _quirk_effect(name: str, answered: Sequence[PromptAnswers], official: ReferenceScores) -> Measure:
    """What the reference score would gain without one quirk."""
    repaired = reference_scores(answered, [quirk for quirk in QUIRKS if quirk != name])
    before, after = ({i: mean(s) for i, s in result.scores.items()} for result in (official, repaired))
    return quirk_effect(name, before, after, sampled=name in SAMPLED_QUIRKS)


def _by_category(prefix: str, answers: Sequence[Counted]) -> list[Measure]:
    """One measure for each L1 and each L2 category, in ELLA's order; answers are in suite order."""
    measures = []
    for kind in ("category", "detail"):
        categories: dict[tuple[str, str], dict[tuple[str, int], list[float]]] = {}
        for answer in answers:
            category = (answer.l1, answer.l1 if kind == "category" else answer.l2)
            by_draw = categories.setdefault(category, {})
            by_draw.setdefault((answer.prompt_id, answer.draw), []).append(answer.score)
        for category in sorted(categories, key=_category_order):
            rows = [
                (*draw, fsum(scores), float(len(scores))) for draw, scores in categories[category].items()
            ]
            measures.append(measure_of(f"{prefix}{kind}/{category[1] or 'untagged'}", rows))
    return measures


def _category_order(category: tuple[str, str]) -> tuple[int, str]:
    l1, name = category
    return (CATEGORY_ORDER.index(l1) if l1 in CATEGORY_ORDER else len(CATEGORY_ORDER)), name


BENCHMARK = DpgFold
