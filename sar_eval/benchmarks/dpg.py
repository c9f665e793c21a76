"""DPG-Bench: shares of questions answered yes, as we score them and as the official script does.

Every figure is 100 times a share, as DPG publishes them. docs/dpg.md describes both scorings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import fsum
from typing import Any, NamedTuple

from sar_eval.errors import BadInput
from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.dpg.questions import Question, read_questions
from sar_eval.suites.dpg.scoring import (
    EXACT_YES,
    QUIRKS,
    ROW_ORDER,
    ImageAnswers,
    PromptAnswers,
    ReferenceScores,
    column_category,
    l1_category,
    reference_scores,
    score_questions,
)
from sar_eval.types import Json, Prompt, Verdict

SCALE = 100
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


def read_answers(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> list[PromptAnswers]:
    """Questions and answers of every prompt in suite order, including prompts without a scored draw.

    Raises:
        BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
    """
    scored: dict[str, list[tuple[int, Verdict]]] = {}
    for key, verdict in verdicts.items():
        if verdict.score is not None:
            prompt_id, _, index = key.rpartition("/")
            scored.setdefault(prompt_id, []).append((int(index), verdict))
    answered = []
    for prompt in prompts:
        questions = read_questions(prompt.checks, f"prompt {prompt.id}")
        by_index = sorted(scored.get(prompt.id, ()), key=lambda pair: pair[0])
        images = tuple(_image_answers(questions, verdict) for _, verdict in by_index)
        indices = tuple(index for index, _ in by_index)
        answered.append(PromptAnswers(prompt.id, questions, images, indices))
    return answered


def _image_answers(questions: Sequence[Question], verdict: Verdict) -> ImageAnswers:
    evidence = verdict.evidence if isinstance(verdict.evidence, dict) else {}
    rows: Json = evidence.get("questions")
    try:
        ids_match = [row["id"] for row in rows] == [question.id for question in questions]
        answers = tuple(str(row["answer"]) for row in rows)
        yes = tuple(row["yes"] is True for row in rows)
        soft = tuple(row.get("soft") for row in rows)
    except (AttributeError, KeyError, TypeError):
        ids_match = False
    if not ids_match:
        raise BadInput(
            f"the verdict on {verdict.key} by judge {verdict.judge!r} does not answer its prompt's "
            "questions: the fold dpg reads verdicts of the judge vqa on this suite; judge the run again"
        )
    return ImageAnswers(answers, yes, soft)


def _corrected(answered: Sequence[PromptAnswers]) -> list[Measure]:
    """Means over images, and over all images' answers of a category, after zeroing."""
    scores, answers = [], []
    for prompt in answered:
        for index, image in zip(prompt.indices, prompt.images, strict=True):
            counted = [score.counted for score in score_questions(prompt.questions, image.yes)]
            scores.append((prompt.id, index, _mean(counted), 1.0))
            answers += [
                Counted(prompt.id, index, question.category, column_category(question), float(score))
                for question, score in zip(prompt.questions, counted, strict=True)
            ]
    return [_measure("overall", scores), *_soft(answered), *_by_category("", answers)]


def _soft(answered: Sequence[PromptAnswers]) -> list[Measure]:
    """The mean probability of yes, without zeroing, if every answer has one."""
    rows = []
    for prompt in answered:
        for index, image in zip(prompt.indices, prompt.images, strict=True):
            known = [p for p in image.soft if p is not None]
            if len(known) < len(image.soft):
                return []
            rows.append((prompt.id, index, _mean(known), 1.0))
    return [_measure("soft", rows)] if rows else []


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
    overall = _measure("reference/overall", rows, combine="mean", count=len(rows))
    return [overall, *_by_category("reference/", answers)]


def _quirk_effect(name: str, answered: Sequence[PromptAnswers], official: ReferenceScores) -> Measure:
    """What the reference score would gain without one quirk; `n` counts the affected prompts."""
    repaired = reference_scores(answered, [quirk for quirk in QUIRKS if quirk != name])
    before, after = ({i: _mean(s) for i, s in result.scores.items()} for result in (official, repaired))
    affected = sum(before.get(prompt.id) != after.get(prompt.id) for prompt in answered)
    effect = partial(_measure, f"quirk/{name}", count=affected, is_effect=True)
    if not before or not after:
        return effect([])
    if name not in SAMPLED_QUIRKS or before.keys() != after.keys():
        gain = _mean(list(after.values())) - _mean(list(before.values()))
        return effect([("", 0, gain, 1.0)], has_interval=False)
    return effect([(i, 0, after[i] - before[i], 1.0) for i in before])


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
            measures.append(_measure(f"{prefix}{kind}/{category[1] or 'untagged'}", rows))
    return measures


def _category_order(category: tuple[str, str]) -> tuple[int, str]:
    l1, name = category
    return (CATEGORY_ORDER.index(l1) if l1 in CATEGORY_ORDER else len(CATEGORY_ORDER)), name


def _measure(name: str, rows: Sequence[Row], **known: Any) -> Measure:
    """A measure on DPG's scale over all prompts."""
    return Measure(name, (stratum(rows),) if rows else (), SCALE, **known)


def _mean(scores: Sequence[float]) -> float:
    return fsum(scores) / len(scores)


BENCHMARK = DpgFold
