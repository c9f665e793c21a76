"""DPG-Bench: shares of questions answered yes, as we score them and as the official script does.

Every metric is 100 times a share, as DPG publishes them. docs/dpg.md describes both scorings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum

from sar_eval.errors import BadInput
from sar_eval.stats import clustered_metric, difference_interval
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
from sar_eval.types import Json, Metric, Prompt, Verdict

SCALE = 100
CATEGORY_ORDER = ("global", "entity", "attribute", "relation", "other")  # of L1 in ELLA's tables
# Quirks with an interval. The effects of the others come from a few prompts that the question file
# singles out, so prompts are not a sample for them.
SAMPLED_QUIRKS = (ROW_ORDER, EXACT_YES)
Row = tuple[str, str, float]  # L1, L2, score of one question about one image


class DpgFold:
    """Both scorings of the same answers, and the effect of each quirk of the official one."""

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
        """`overall`, `category/*` (L1) and `detail/*` (L2); `reference/*`; `quirk/*`.

        With `soft` if every answer has a probability. Only scored draws count; the summary reports
        missing ones.

        Raises:
            BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
        """
        answered = read_answers(prompts, verdicts)
        official = reference_scores(answered)
        effects = [_quirk_effect(name, answered, official) for name in QUIRKS]
        return (*_corrected(answered), *_reference(official), *effects)


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
        answered.append(PromptAnswers(prompt.id, questions, images))
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


def _corrected(answered: Sequence[PromptAnswers]) -> list[Metric]:
    """Means over images, and over all images' answers of a category, after zeroing."""
    counted = [
        [[score.counted for score in score_questions(p.questions, image.yes)] for image in p.images]
        for p in answered
    ]
    rows = [
        [
            (question.category, column_category(question), float(score))
            for image in images
            for question, score in zip(prompt.questions, image, strict=True)
        ]
        for prompt, images in zip(answered, counted, strict=True)
    ]
    scores = [[_mean(image) for image in images] for images in counted]
    return [_metric("overall", scores), *_soft(answered), *_by_category("", rows)]


def _soft(answered: Sequence[PromptAnswers]) -> list[Metric]:
    """The mean probability of yes, without zeroing, if every answer has one."""
    softs = [[image.soft for image in prompt.images] for prompt in answered]
    scores = [
        [_mean([p for p in soft if p is not None]) for soft in images if None not in soft]
        for images in softs
    ]
    complete = any(softs) and [len(images) for images in softs] == [len(images) for images in scores]
    return [_metric("soft", scores)] if complete else []


def _reference(official: ReferenceScores) -> list[Metric]:
    """Mean over prompts of their means over images; categories as in the script."""
    overall = _metric("reference/overall", [[_mean(images)] for images in official.scores.values()])
    rows = [
        [(l1_category(l2), l2, float(yes)) for l2, yes in answers]
        for answers in official.categories.values()
    ]
    images = sum(map(len, official.scores.values()))
    return [replace(overall, n=images), *_by_category("reference/", rows)]


def _quirk_effect(name: str, answered: Sequence[PromptAnswers], official: ReferenceScores) -> Metric:
    """What the reference score would gain without one quirk; `n` counts the affected prompts."""
    repaired = reference_scores(answered, [quirk for quirk in QUIRKS if quirk != name])
    before, after = ({i: _mean(s) for i, s in result.scores.items()} for result in (official, repaired))
    affected = sum(before.get(prompt.id) != after.get(prompt.id) for prompt in answered)
    if not before or not after:
        return Metric(f"quirk/{name}", None, None, None, affected, SCALE)
    if name not in SAMPLED_QUIRKS or before.keys() != after.keys():
        gain = _mean(list(after.values())) - _mean(list(before.values()))
        return Metric(f"quirk/{name}", SCALE * gain, None, None, affected, SCALE)
    gain, low, high = difference_interval([after[i] - before[i] for i in before])
    return Metric(f"quirk/{name}", SCALE * gain, SCALE * low, SCALE * high, affected, SCALE)


def _by_category(prefix: str, rows: Sequence[Sequence[Row]]) -> list[Metric]:
    """One metric for each L1 and each L2 category, in ELLA's order; `rows` are grouped by prompt."""
    metrics = []
    for kind in ("category", "detail"):
        by_category: dict[tuple[str, str], list[list[float]]] = {}
        for prompt_rows in rows:
            of_prompt: dict[tuple[str, str], list[float]] = {}
            for l1, l2, score in prompt_rows:
                of_prompt.setdefault((l1, l1 if kind == "category" else l2), []).append(score)
            for category, scores in of_prompt.items():
                by_category.setdefault(category, []).append(scores)
        metrics += [
            _metric(f"{prefix}{kind}/{category[1] or 'untagged'}", by_category[category])
            for category in sorted(by_category, key=_category_order)
        ]
    return metrics


def _category_order(category: tuple[str, str]) -> tuple[int, str]:
    l1, name = category
    return (CATEGORY_ORDER.index(l1) if l1 in CATEGORY_ORDER else len(CATEGORY_ORDER)), name


def _metric(name: str, prompts: Sequence[Sequence[float]]) -> Metric:
    """A mean on DPG's scale with its interval clustered by prompt; None if nothing was scored."""
    return clustered_metric(name, [[scores for scores in prompts if scores]], SCALE)


def _mean(scores: Sequence[float]) -> float:
    return fsum(scores) / len(scores)


BENCHMARK = DpgFold
