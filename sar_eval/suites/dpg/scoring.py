"""How answers count: in graph order (`corrected`), and as DPG-Bench's official script has it (`reference`).

Written from the behaviour of `dpg_bench/compute_dpg_bench.py` in
https://github.com/TencentQQGYLab/ELLA (Hu et al., arXiv 2403.05135). docs/dpg.md lists its quirks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sar_eval.suites.dpg.questions import Question
from sar_eval.suites.dpg.yes_no import read_exact

# What the script does to the overall score that `corrected` does not.
FIRST_ROW, DROPPED, ROW_ORDER, EXACT_YES = QUIRKS = (
    "first_row_skipped",
    "failing_prompts_dropped",
    "zeroed_in_row_order",
    "only_exact_yes",
)
NUMBER = re.compile(r"\d+(\.\d*)?")


@dataclass(frozen=True, slots=True)
class Counted:
    """What one question adds to its image's score.

    Attributes:
        counted: 1 or 0.
        zeroed_by: ids of the parents that do not count themselves and so turn this question's yes into
            0; empty where the answer counts as it was given.
    """

    counted: int
    zeroed_by: tuple[int, ...] = ()


def ancestors(questions: Sequence[Question]) -> dict[int, frozenset[int]]:
    """Ids of all questions that each id rests on, directly or not.

    Parents that are no question are left out. An id holds itself only where it lies on a cycle.
    """
    parents = {question.id: question.parents for question in questions}
    return {question.id: _reached(question.parents, parents) for question in questions}


def _reached(start: Sequence[int], parents: dict[int, tuple[int, ...]]) -> frozenset[int]:
    found: set[int] = set()
    ahead = list(start)
    while ahead:
        name = ahead.pop()
        if name in parents and name not in found:
            found.add(name)
            ahead += parents[name]
    return frozenset(found)


def count(questions: Sequence[Question], yes: Sequence[bool]) -> list[Counted]:
    """How each question counts: 1 if it and all its ancestors are answered yes, in any order of rows.

    A parent that is no question is ignored. The members of a cycle are each other's ancestors, so they
    all count or none does.
    """
    above = ancestors(questions)
    said = {question.id: answer for question, answer in zip(questions, yes, strict=True)}
    good = {name for name in said if said[name] and all(said[other] for other in above[name])}
    counted = []
    for question, answer in zip(questions, yes, strict=True):
        bad = (name for name in question.parents if name in said and name not in good)
        counted.append(Counted(int(question.id in good), tuple(dict.fromkeys(bad)) if answer else ()))
    return counted


@dataclass(frozen=True, slots=True)
class Image:
    """One image's answers, in the order of its prompt's questions.

    Attributes:
        answers: in the network's words.
        yes: whether each counts as yes.
        soft: probability of yes, where the network tells.
    """

    answers: tuple[str, ...]
    yes: tuple[bool, ...]
    soft: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt, its questions in the CSV's order, and its judged images in drawing order."""

    id: str
    questions: tuple[Question, ...]
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """What the official script makes of a suite's answers.

    Attributes:
        scores: item id to its images' scores, 0 to 1. The headline is the mean of the items' means.
        dropped: ids of the items that it leaves out because they raise an error, in suite order.
        categories: item id to (L2 category, answer 1 or 0) of its last image, before zeroing.
    """

    scores: dict[str, list[float]]
    dropped: tuple[str, ...]
    categories: dict[str, list[tuple[str, int]]]


def reference(items: Sequence[Item], quirks: Sequence[str] = QUIRKS) -> Reference:
    """The script's figures, with the quirks named; without any, scores are those of `count`.

    `items` are those of the whole CSV in its order, whose first row is the one that is skipped. Items
    without images are no matter of the script's: it goes through files.
    """
    scores, dropped, categories = {}, [], {}
    matching = not all(NUMBER.fullmatch(item.id) for item in items)
    for number, item in enumerate(items):
        skip = int(number == 0 and FIRST_ROW in quirks)
        questions = item.questions[skip:]
        said = [_said(image, quirks)[skip:] for image in item.images]
        if not said:
            continue
        # The script looks up what stands before the first dot of a file's name. Where all ids are numbers,
        # pandas reads them as such, and then no name is among them.
        fails = not matching or "." in item.id or any(_fails(questions, yes) for yes in said)
        if not questions or (fails and DROPPED in quirks):
            dropped.append(item.id)
            continue
        scores[item.id] = [_score(questions, yes, quirks) for yes in said]
        categories[item.id] = [(l2(q), int(yes)) for q, yes in zip(questions, said[-1], strict=True)]
    return Reference(scores, tuple(dropped), categories)


def _said(image: Image, quirks: Sequence[str]) -> tuple[bool, ...]:
    if EXACT_YES in quirks:
        return tuple(read_exact(answer) for answer in image.answers)
    return image.yes


def _fails(questions: Sequence[Question], yes: Sequence[bool]) -> bool:
    return _in_place(questions, yes)[1]


def _score(questions: Sequence[Question], yes: Sequence[bool], quirks: Sequence[str]) -> float:
    if ROW_ORDER in quirks:
        counted = _in_place(questions, yes)[0]
    else:
        counted = [found.counted for found in count(questions, yes)]
    return sum(counted) / len(counted)


def _in_place(questions: Sequence[Question], yes: Sequence[bool]) -> tuple[list[int], bool]:
    """Zeroing row by row in one table, so that a later row's zero comes too late for an earlier one.

    Also whether a parent was looked up that is not there. The search stops at a question's first no,
    so that a missing parent after it does no harm.
    """
    scores = {question.id: int(said) for question, said in zip(questions, yes, strict=True)}
    fails = False
    for question in questions:
        for parent in question.parents:
            if parent not in scores:
                fails = True
            elif not scores[parent]:
                scores[question.id] = 0
                break
    return list(scores.values()), fails


def l1(category: str) -> str:
    """The first level of an L2 category: "entity" of "entity - whole"."""
    return category.partition("-")[0].strip()


def l2(question: Question) -> str:
    """The script's L2 category: what stands before the bracket of `tuple`; our suites may have none."""
    return question.statement.partition("(")[0].strip() or label(question)


def label(question: Question) -> str:
    """L2 from the columns `category_broad` and `category_detailed`: "entity - whole", "global"."""
    return f"{question.category} - {question.detail}" if question.detail else question.category
