"""OneIG-Bench's alignment: questions zeroed by their direct parents alone, as its script does it.

Reimplemented from the behaviour of `scripts/alignment/alignment_score.py` of
https://github.com/OneIG-Bench/OneIG-Benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence

from sar_eval.suites.dpg.questions import Question
from sar_eval.suites.dpg.scoring import score_questions

# What the script does and we do not, as far as it changes the answers' score.
EXACT_YES, PARENTS_ALONE = QUIRKS = ("only_exact_yes", "parents_alone")


def is_exact_yes(answer: str) -> bool:
    """Whether the answer is `Yes`, with a capital and nothing around it."""
    return answer == "Yes"


def score_by_parents(questions: Sequence[Question], yes: Sequence[bool]) -> list[int]:
    """1 for each question that is answered yes, as are its parents, whatever these would count themselves.

    A parent that does not exist is passed over.
    """
    raw = {question.id: answer for question, answer in zip(questions, yes, strict=True)}
    return [
        int(raw[question.id] and all(raw.get(parent, True) for parent in question.parents))
        for question in questions
    ]


def picture_score(
    questions: Sequence[Question],
    answers: Sequence[str],
    yes: Sequence[bool],
    quirks: Sequence[str] = QUIRKS,
) -> float:
    """The mean over a picture's questions with these quirks; ours without any.

    Args:
        questions: of its prompt.
        answers: the network's text.
        yes: whether each counts as yes as we read it.
        quirks: of `QUIRKS`.
    """
    counted = [is_exact_yes(answer) for answer in answers] if EXACT_YES in quirks else list(yes)
    if PARENTS_ALONE in quirks:
        return sum(score_by_parents(questions, counted)) / len(questions)
    return sum(score.counted for score in score_questions(questions, counted)) / len(questions)
