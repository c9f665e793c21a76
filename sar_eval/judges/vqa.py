"""Scores images by a network's answers to the prompt's questions: DPG-Bench with mPLUG or any other.

The answerer is a module of `answerers/`. A question counts if it and all its ancestors in the prompt's
question graph are answered yes; an image's score is the mean over its questions. An image with an
unanswered question has no score.

A question with `expect` counts as the probability of the answer that is expected (GenEval 2, PairComp),
whatever its ancestors are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sar_eval import discover
from sar_eval.answers import Asked
from sar_eval.errors import BadInput
from sar_eval.images.files import DECODING_THREADS, read_image
from sar_eval.options import check_whole_number
from sar_eval.protocols import Answerer
from sar_eval.suites.dpg.questions import Question, read_questions
from sar_eval.suites.dpg.scoring import QuestionScore, listed_score, score_questions
from sar_eval.types import Answer, Generation, Json, Prompt, Verdict

VERSION = "1"
LABEL = "judge 'vqa'"  # in error messages
MAX_LISTED = 3  # questions in a reason or an error


@dataclass(slots=True)
class _Sample:
    """An image and its questions, or an error."""

    key: str
    questions: Sequence[Question] = ()
    pixels: NDArray[np.uint8] | None = None
    error: str | None = None


class VqaJudge:
    """The share of a prompt's questions that a network answers with yes."""

    def __init__(
        self, *, device: str = "cpu", answerer: str = "mplug", images_at_once: int = 8, **options: Any
    ) -> None:
        """Create the answerer, which checks its options; its network is loaded on enter.

        Args:
            device: torch device of the answerer.
            answerer: a name listed by `sar-eval list`, or `path.py:NAME`.
            images_at_once: images of one call of the answerer; changes speed, not answers.
            options: of the answerer.

        Raises:
            BadInput: an option that the judge or the answerer does not have.
            UnknownName: no such answerer.
        """
        if not isinstance(answerer, str):
            raise BadInput(f"answerer {answerer!r} of {LABEL}: a name or path.py:NAME")
        check_whole_number("images_at_once", images_at_once, LABEL)
        self.images_at_once = images_at_once
        self.answerer_name = Path(answerer.rpartition(":")[0]).stem if ".py:" in answerer else answerer
        self.answerer = _create_answerer(answerer, device, options)
        self.version = f"{VERSION}+{self.answerer_name}+{self.answerer.version}"
        self.speed_options = ("images_at_once", *getattr(self.answerer, "speed_options", ()))
        self.path_options = tuple(getattr(self.answerer, "path_options", ()))
        self.cost = getattr(self.answerer, "cost", None)

    def __enter__(self) -> Self:
        self.answerer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answerer.__exit__(kind, error, trace)

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; an unreadable one, or one without questions, gets an error.

        An exception of the answerer reaches the caller after the verdicts that were complete by then.
        """
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            samples = pool.map(_load_sample, items)
            for start in range(0, len(items), self.images_at_once):
                batch = [next(samples) for _ in items[start : start + self.images_at_once]]
                for sample in batch:
                    if sample.error is not None:
                        yield Verdict(sample.key, "vqa", self.version, error=sample.error)
                yield from self._answer([sample for sample in batch if sample.error is None])

    def _answer(self, samples: Sequence[_Sample]) -> Iterator[Verdict]:
        for sample, answers in zip(samples, self._answers(samples) if samples else (), strict=True):
            yield self._verdict(sample, answers)

    def _answers(self, samples: Sequence[_Sample]) -> Iterator[Sequence[Answer]]:
        images = [(sample.pixels, sample.questions) for sample in samples if sample.pixels is not None]
        if not any(question.expect for _, questions in images for question in questions):
            return self.answerer.answer([(pixels, [q.text for q in qs]) for pixels, qs in images])
        ask = getattr(self.answerer, "ask", None)
        if ask is None:
            raise BadInput(
                f"{LABEL}: answerer {self.answerer_name!r} gives no probabilities of the answers "
                "that these questions list: take --judge-option answerer=transformers or server"
            )
        answers: Iterator[Sequence[Answer]] = ask(
            [(pixels, list(map(_asked, qs))) for pixels, qs in images]
        )
        return answers

    def _verdict(self, sample: _Sample, answers: Sequence[Answer]) -> Verdict:
        pairs = list(zip(sample.questions, answers, strict=True))
        if error := _missing_answers(pairs):
            # The answers that are there are stored as evidence, without a score.
            evidence = self._evidence([_answer_row(question, answer) for question, answer in pairs])
            return Verdict(sample.key, "vqa", self.version, evidence=evidence, error=error)
        counted = score_questions(sample.questions, [answer.yes is True for answer in answers])
        rows = [_answer_row(q, a) | _score_row(c) for (q, a), c in zip(pairs, counted, strict=True)]
        scores = [
            c.counted if a.listed is None else listed_score(a.listed, is_ratio=q.is_ratio)
            for (q, a), c in zip(pairs, counted, strict=True)
        ]
        return Verdict(
            sample.key,
            "vqa",
            self.version,
            score=sum(scores) / len(scores),
            reason=_reason(pairs),
            evidence=self._evidence(rows),
        )

    def _evidence(self, rows: list[dict[str, Json]]) -> Json:
        """Every question with its answer, and the number of questions that were cut."""
        truncated = sum(row["truncated"] for row in rows)
        return {"answerer": self.answerer_name, "truncated": truncated, "questions": rows}


def _create_answerer(name: str, device: str, options: dict[str, Any]) -> Answerer:
    answerer_class = discover.load("answerers", name)
    try:
        answerer: Answerer = answerer_class(device=device, **options)
    except TypeError as error:
        raise BadInput(f"answerer {name!r} does not take the options {options}: {error}") from error
    return answerer


def _load_sample(item: tuple[Prompt, Generation]) -> _Sample:
    prompt, generation = item
    try:
        questions = read_questions(prompt.checks, f"prompt {prompt.id!r}")
        return _Sample(generation.key, questions, read_image(generation))
    except BadInput as error:
        return _Sample(generation.key, error=str(error))


def _asked(question: Question) -> Asked:
    return Asked(question.text, question.expect, question.against, are_pieces=question.is_ratio)


def _missing_answers(pairs: Sequence[tuple[Question, Answer]]) -> str:
    """The questions without an answer, each with its error; "" if all have one."""
    errors = [
        f"question {question.id} ({question.text!r}): {error}"
        for question, answer in pairs
        if (error := _answer_error(question, answer))
    ]
    return _join_first(errors)


def _answer_error(question: Question, answer: Answer) -> str | None:
    if answer.error is not None:
        return answer.error
    if answer.yes is None:
        return f"neither yes nor no: {answer.text!r}"
    if question.is_ratio and answer.listed and not answer.listed.distinct + answer.listed.against:
        return f"none of the listed answers has a probability: {answer.text!r}"
    return None


def _reason(pairs: Sequence[tuple[Question, Answer]]) -> str:
    """The questions that were not answered yes; "" if all were."""
    others = [question.text for question, answer in pairs if answer.yes is not True]
    return f"not yes: {_join_first(others)}" if others else ""


def _join_first(texts: Sequence[str]) -> str:
    """The first `MAX_LISTED` texts and the number of the others."""
    more = [f"and {len(texts) - MAX_LISTED} more"] if len(texts) > MAX_LISTED else []
    return "; ".join([*texts[:MAX_LISTED], *more])


def _answer_row(question: Question, answer: Answer) -> dict[str, Json]:
    error = {"error": message} if (message := _answer_error(question, answer)) else {}
    listed = {} if answer.listed is None else {"expect": list(question.expect), **asdict(answer.listed)}
    return {
        "id": question.id,
        "question": question.text,
        "answer": answer.text,
        "yes": answer.yes,
        "soft": answer.soft,
        "truncated": answer.truncated,
        **listed,
        **error,
    }


def _score_row(counted: QuestionScore) -> dict[str, Json]:
    return {"zeroed_by": list(counted.zeroed_by), "counted": counted.counted}


JUDGE = VqaJudge
