"""What the judge `vqa` stored about questions that list their answers, for their benchmarks' folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sar_eval.answers import Listed
from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import Question, read_questions
from sar_eval.types import Json, Prompt, Verdict

NUMBERS = ("mass", "distinct", "against")


class Answered(NamedTuple):
    """A question with the probabilities of its answers, and whether the likeliest one was expected."""

    question: Question
    listed: Listed
    yes: bool

    @property
    def most(self) -> float:
        """The probability of the expected answer if each spelling that the server hid had its floor."""
        hidden = self.listed.unlisted * (self.listed.floor or 0.0)
        return min(self.listed.distinct + hidden, max(1.0, self.listed.distinct))


@dataclass(frozen=True, slots=True)
class AnsweredImage:
    """One draw of a prompt with its answers, in the order of the prompt's questions."""

    prompt: Prompt
    index: int
    answers: Sequence[Answered]


def answered_images(
    prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict], fold: str
) -> Iterator[AnsweredImage]:
    """The scored draws, prompts in the order of the suite and draws in that of their indices.

    Args:
        prompts: of the suite.
        verdicts: by draw key.
        fold: its name, for messages.

    Raises:
        BadInput: a prompt has no questions, or a verdict's evidence does not answer them.
    """
    scored: dict[str, list[tuple[int, Verdict]]] = {}
    for key, verdict in verdicts.items():
        if verdict.score is not None:
            prompt_id, _, number = key.rpartition("/")
            scored.setdefault(prompt_id, []).append((int(number), verdict))
    for prompt in prompts:
        questions = read_questions(prompt.checks, f"prompt {prompt.id}")
        for index, verdict in sorted(scored.get(prompt.id, ()), key=lambda pair: pair[0]):
            yield AnsweredImage(prompt, index, _answers(questions, verdict, fold))


def _answers(questions: Sequence[Question], verdict: Verdict, fold: str) -> tuple[Answered, ...]:
    evidence = verdict.evidence if isinstance(verdict.evidence, dict) else {}
    rows: Json = evidence.get("questions")
    try:
        answers = tuple(_answer(*pair) for pair in zip(questions, rows, strict=True))
        ids_match = [row["id"] for row in rows] == [question.id for question in questions]
    except (AttributeError, KeyError, TypeError, ValueError):
        ids_match = False
    if not ids_match:
        raise BadInput(
            f"the verdict on {verdict.key} by judge {verdict.judge!r} does not answer its prompt's "
            f"questions: the fold {fold} reads verdicts of the judge vqa on this suite; judge the run again"
        )
    return answers


def _answer(question: Question, row: Json) -> Answered:
    mass, distinct, against = (float(row[name]) for name in NUMBERS)
    floor = None if row["floor"] is None else float(row["floor"])
    return Answered(
        question, Listed(mass, distinct, against, floor, int(row["unlisted"])), row["yes"] is True
    )
