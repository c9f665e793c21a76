"""Scores from answers: along the question graph (`corrected`), and as in DPG-Bench's script (`reference`).

Reimplemented from the behaviour of `dpg_bench/compute_dpg_bench.py` in
https://github.com/TencentQQGYLab/ELLA (Hu et al., arXiv 2403.05135). docs/dpg.md lists its quirks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sar_eval.answers import Listed
from sar_eval.suites.dpg.questions import Question
from sar_eval.suites.dpg.yes_no import read_exact

# What the script does and `corrected` does not, as far as it changes the overall score.
FIRST_ROW, DROPPED, ROW_ORDER, EXACT_YES = QUIRKS = (
    "first_row_skipped",
    "failing_prompts_dropped",
    "zeroed_in_row_order",
    "only_exact_yes",
)
NUMBER = re.compile(r"\d+(\.\d*)?")


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """The score of one question about one image.

    Attributes:
        counted: 1 or 0.
        zeroed_by: ids of the parents with score 0 because of which this question's yes scores 0; empty
            if the answer was not overruled.
    """

    counted: int
    zeroed_by: tuple[int, ...] = ()


def ancestors(questions: Sequence[Question]) -> dict[int, frozenset[int]]:
    """Ids of all ancestors of each question.

    Parents that do not exist are left out. A question is its own ancestor only if it lies on a cycle.
    """
    parents = {question.id: question.parents for question in questions}
    return {question.id: _reachable(question.parents, parents) for question in questions}


def _reachable(start: Sequence[int], parents: dict[int, tuple[int, ...]]) -> frozenset[int]:
    visited: set[int] = set()
    pending = list(start)
    while pending:
        question_id = pending.pop()
        if question_id in parents and question_id not in visited:
            visited.add(question_id)
            pending += parents[question_id]
    return frozenset(visited)


def score_questions(questions: Sequence[Question], yes: Sequence[bool]) -> list[QuestionScore]:
    """Score each question 1 if it and all its ancestors are answered yes, whatever the order of rows.

    Parents that do not exist are ignored. The members of a cycle are each other's ancestors, so either
    all of them score or none.
    """
    ancestors_of = ancestors(questions)
    is_yes = {question.id: answer for question, answer in zip(questions, yes, strict=True)}
    counting = {id_ for id_ in is_yes if is_yes[id_] and all(is_yes[other] for other in ancestors_of[id_])}
    scores = []
    for question, answer in zip(questions, yes, strict=True):
        failed = (parent for parent in question.parents if parent in is_yes and parent not in counting)
        zeroed_by = tuple(dict.fromkeys(failed)) if answer else ()
        scores.append(QuestionScore(int(question.id in counting), zeroed_by))
    return scores


def listed_score(listed: Listed, *, is_ratio: bool) -> float:
    """The score of a question that lists its answers: the expected one's probability, or its share."""
    if is_ratio:
        return listed.distinct / (listed.distinct + listed.against)
    return listed.distinct


@dataclass(frozen=True, slots=True)
class ImageAnswers:
    """The answers about one image, in the order of its prompt's questions.

    Attributes:
        answers: the network's text.
        yes: whether each counts as yes.
        soft: probability of yes; None where the network does not return one.
    """

    answers: tuple[str, ...]
    yes: tuple[bool, ...]
    soft: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptAnswers:
    """A prompt's id, its questions in CSV order, its judged images by index, and these indices."""

    id: str
    questions: tuple[Question, ...]
    images: tuple[ImageAnswers, ...] = ()
    indices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """What the official script computes from a suite's answers.

    Attributes:
        scores: prompt id to its images' scores, 0 to 1; the overall score is the mean of prompts' means.
        dropped: ids of the prompts that the script leaves out because they raise an error, in suite order.
        categories: prompt id to (L2 category, answer 1 or 0) of its last image, before zeroing.
    """

    scores: dict[str, list[float]]
    dropped: tuple[str, ...]
    categories: dict[str, list[tuple[str, int]]]


def reference_scores(prompts: Sequence[PromptAnswers], quirks: Sequence[str] = QUIRKS) -> ReferenceScores:
    """The script's scores with the given quirks; without any, they equal those of `score_questions`.

    `prompts` must be all of the CSV in its order, because the script skips the first row. Prompts without
    images are ignored: the script iterates over image files.
    """
    scores, dropped, categories = {}, [], {}
    ids_match = not all(NUMBER.fullmatch(prompt.id) for prompt in prompts)
    for number, prompt in enumerate(prompts):
        skip = int(number == 0 and FIRST_ROW in quirks)
        questions = prompt.questions[skip:]
        answers = [_yes_answers(image, quirks)[skip:] for image in prompt.images]
        if not answers:
            continue
        # The script looks up the part of a file name before its first dot. If all ids are numbers, pandas
        # parses them as such and no file name matches.
        fails = (
            not ids_match or "." in prompt.id or any(_zero_in_place(questions, yes)[1] for yes in answers)
        )
        if not questions or (fails and DROPPED in quirks):
            dropped.append(prompt.id)
            continue
        scores[prompt.id] = [_score(questions, yes, quirks) for yes in answers]
        pairs = zip(questions, answers[-1], strict=True)
        categories[prompt.id] = [(l2_category(question), int(yes)) for question, yes in pairs]
    return ReferenceScores(scores, tuple(dropped), categories)


def _yes_answers(image: ImageAnswers, quirks: Sequence[str]) -> tuple[bool, ...]:
    if EXACT_YES in quirks:
        return tuple(read_exact(answer) for answer in image.answers)
    return image.yes


def _score(questions: Sequence[Question], yes: Sequence[bool], quirks: Sequence[str]) -> float:
    if ROW_ORDER in quirks:
        counted = _zero_in_place(questions, yes)[0]
    else:
        counted = [score.counted for score in score_questions(questions, yes)]
    return sum(counted) / len(counted)


def _zero_in_place(questions: Sequence[Question], yes: Sequence[bool]) -> tuple[list[int], bool]:
    """Zero scores row by row in one table: a row does not see that a later one will be zeroed.

    Returns:
        (scores, whether a missing parent was looked up). The lookup stops at a question's first parent
        with score 0, so a missing parent after it raises no error in the script.
    """
    scores = {question.id: int(answer) for question, answer in zip(questions, yes, strict=True)}
    fails = False
    for question in questions:
        for parent in question.parents:
            if parent not in scores:
                fails = True
            elif not scores[parent]:
                scores[question.id] = 0
                break
    return list(scores.values()), fails


def l1_category(l2: str) -> str:
    """The L1 category of an L2 category: "entity" of "entity - whole"."""
    return l2.partition("-")[0].strip()


def l2_category(question: Question) -> str:
    """The script's L2 category: the text before the bracket of `tuple`; the columns' if that is empty."""
    return question.statement.partition("(")[0].strip() or column_category(question)


def column_category(question: Question) -> str:
    """L2 from the columns `category_broad` and `category_detailed`: "entity - whole", "global"."""
    return f"{question.category} - {question.detail}" if question.detail else question.category
