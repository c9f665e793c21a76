"""What the folds of question graphs (DPG-Bench, DSG) share: answers from verdicts, and measures of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import fsum
from typing import Any

from sar_eval.errors import BadInput
from sar_eval.measures import Measure, Row, stratum
from sar_eval.suites.dpg.questions import Question, read_questions
from sar_eval.suites.dpg.scoring import ImageAnswers, PromptAnswers
from sar_eval.types import Json, Prompt, Verdict

SCALE = 100  # both benchmarks publish percentages


def read_answers(
    prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict], fold: str = "dpg"
) -> list[PromptAnswers]:
    """Questions and answers of every prompt in suite order, including prompts without a scored draw.

    Raises:
        BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
    """
    scored = scored_by_prompt(verdicts)
    answered = []
    for prompt in prompts:
        questions = read_questions(prompt.checks, f"prompt {prompt.id}")
        by_index = scored.get(prompt.id, ())
        images = tuple(_image_answers(questions, verdict, fold) for _, verdict in by_index)
        indices = tuple(index for index, _ in by_index)
        answered.append(PromptAnswers(prompt.id, questions, images, indices))
    return answered


def scored_by_prompt(verdicts: Mapping[str, Verdict]) -> dict[str, list[tuple[int, Verdict]]]:
    """Index and verdict of each prompt's scored draws, in the order of the indices."""
    scored: dict[str, list[tuple[int, Verdict]]] = {}
    for key, verdict in verdicts.items():
        if verdict.score is not None:
            prompt_id, _, index = key.rpartition("/")
            scored.setdefault(prompt_id, []).append((int(index), verdict))
    return {prompt_id: sorted(found, key=lambda pair: pair[0]) for prompt_id, found in scored.items()}


def does_not_answer(verdict: Verdict, fold: str) -> BadInput:
    """The error for evidence that is another suite's, or another judge's."""
    return BadInput(
        f"the verdict on {verdict.key} by judge {verdict.judge!r} does not answer its prompt's questions: "
        f"the fold {fold} reads verdicts of the judge vqa on this suite; judge the run again"
    )


def _image_answers(questions: Sequence[Question], verdict: Verdict, fold: str) -> ImageAnswers:
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
        raise does_not_answer(verdict, fold)
    return ImageAnswers(answers, yes, soft)


def each_image(answered: Sequence[PromptAnswers]) -> Iterator[tuple[PromptAnswers, int, ImageAnswers]]:
    """Every scored image with its prompt and index."""
    for prompt in answered:
        for index, image in zip(prompt.indices, prompt.images, strict=True):
            yield prompt, index, image


def measure_of(name: str, rows: Sequence[Row], **known: Any) -> Measure:
    """A measure in percent over all prompts."""
    return Measure(name, (stratum(rows),) if rows else (), SCALE, **known)


def soft_measure(answered: Sequence[PromptAnswers]) -> list[Measure]:
    """The mean probability of yes, without zeroing, if every answer has one."""
    rows = []
    for prompt, index, image in each_image(answered):
        known = [p for p in image.soft if p is not None]
        if len(known) < len(image.soft):
            return []
        rows.append((prompt.id, index, mean(known), 1.0))
    return [measure_of("soft", rows)] if rows else []


def quirk_effect(
    name: str, before: Mapping[str, float], after: Mapping[str, float], *, sampled: bool
) -> Measure:
    """What the reference score would gain without one quirk; `n` counts the prompts that it changes.

    Args:
        name: of the quirk.
        before, after: scores of prompts with all quirks, and without this one.
        sampled: whether its prompts are a sample, so that the effect has an interval.
    """
    affected = sum(before.get(prompt) != after.get(prompt) for prompt in dict.fromkeys([*before, *after]))
    effect = partial(measure_of, f"quirk/{name}", count=affected, is_effect=True)
    if not before or not after:
        return effect([])
    if not sampled or before.keys() != after.keys():
        gain = mean(list(after.values())) - mean(list(before.values()))
        return effect([("", 0, gain, 1.0)], has_interval=False)
    return effect([(i, 0, after[i] - before[i], 1.0) for i in before])


def mean(scores: Sequence[float]) -> float:
    """Of numbers, exact before it is rounded."""
    return fsum(scores) / len(scores)
