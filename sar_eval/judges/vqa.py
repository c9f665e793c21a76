"""Puts each prompt's questions about its image to a network: DPG-Bench with mPLUG or any other.

An answerer (a file of `answerers/`) gives the answers. A question counts if it and all its ancestors in
the prompt's question graph are answered yes; the score of an image is the mean over its questions.
Nothing is scored unless every question of the image has an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sar_eval import discover
from sar_eval.errors import BadInput
from sar_eval.images.files import DECODING_THREADS, read_image
from sar_eval.protocols import Answerer
from sar_eval.suites.dpg.questions import Question, read_questions
from sar_eval.suites.dpg.scoring import QuestionScore, score_questions
from sar_eval.types import Answer, Generation, Json, Prompt, Verdict

VERSION = "1"
NAMED = 3  # questions that a reason or an error names


@dataclass(slots=True)
class _Look:
    """An image and what is asked about it, or why nothing can be asked."""

    key: str
    questions: Sequence[Question] = ()
    pixels: NDArray[np.uint8] | None = None
    error: str | None = None


class VqaJudge:
    """The share of a prompt's questions that a network answers with yes."""

    def __init__(
        self, *, device: str = "cpu", answerer: str = "mplug", images_at_once: int = 8, **options: Any
    ) -> None:
        """Make the answerer, which checks its options; no network is loaded yet.

        Args:
            device: of torch, for the answerer.
            answerer: a name of `sar-eval list`, or `path.py:NAME`.
            images_at_once: images that the answerer gets together; changes speed, not answers.
            options: of the answerer.

        Raises:
            BadInput: an option that the judge or the answerer does not take.
            UnknownName: no answerer is called so.
        """
        if not isinstance(answerer, str):
            raise BadInput(f"answerer {answerer!r} of judge 'vqa': a name or path.py:NAME")
        whole = isinstance(images_at_once, int) and not isinstance(images_at_once, bool)
        if not whole or images_at_once < 1:
            raise BadInput(f"images_at_once {images_at_once!r} of judge 'vqa': a whole number >= 1")
        self.images_at_once = images_at_once
        self.name = Path(answerer.rpartition(":")[0]).stem if ".py:" in answerer else answerer
        self.answerer = _make(answerer, device, options)
        self.version = f"{VERSION}+{self.name}+{self.answerer.version}"
        self.speed_options = ("images_at_once", *getattr(self.answerer, "speed_options", ()))
        self.path_options = tuple(getattr(self.answerer, "path_options", ()))

    def __enter__(self) -> Self:
        self.answerer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answerer.__exit__(kind, error, trace)

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; one that cannot be asked about gets an error instead of a score.

        What the answerer raises goes on to the caller, after the verdicts that are known by then.
        """
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            looks = pool.map(_look, items)
            for start in range(0, len(items), self.images_at_once):
                part = [next(looks) for _ in items[start : start + self.images_at_once]]
                yield from (self._unseen(look) for look in part if look.error is not None)
                yield from self._ask([look for look in part if look.error is None])

    def _ask(self, looks: Sequence[_Look]) -> Iterator[Verdict]:
        images = [
            (look.pixels, [question.text for question in look.questions])
            for look in looks
            if look.pixels is not None
        ]
        for look, answers in zip(looks, self.answerer.answer(images) if looks else (), strict=True):
            yield self._verdict(look, answers)

    def _unseen(self, look: _Look) -> Verdict:
        return Verdict(look.key, "vqa", self.version, error=look.error)

    def _verdict(self, look: _Look, answers: Sequence[Answer]) -> Verdict:
        pairs = list(zip(look.questions, answers, strict=True))
        if error := _unanswered(pairs):
            # What is known is kept for the reader; it is no score.
            evidence = self._evidence([_row(question, answer) for question, answer in pairs])
            return Verdict(look.key, "vqa", self.version, evidence=evidence, error=error)
        counted = score_questions(look.questions, [answer.yes is True for answer in answers])
        rows = [_row(q, a) | _counted(c) for (q, a), c in zip(pairs, counted, strict=True)]
        return Verdict(
            look.key,
            "vqa",
            self.version,
            score=sum(c.counted for c in counted) / len(counted),
            reason=_reason(pairs),
            evidence=self._evidence(rows),
        )

    def _evidence(self, rows: list[dict[str, Json]]) -> Json:
        """Every question with its answer, and how many were too long for the network."""
        truncated = sum(row["truncated"] for row in rows)
        return {"answerer": self.name, "truncated": truncated, "questions": rows}


def _make(name: str, device: str, options: dict[str, Any]) -> Answerer:
    make = discover.load("answerers", name)
    try:
        made: Answerer = make(device=device, **options)
    except TypeError as error:
        raise BadInput(f"answerer {name!r} does not take the options {options}: {error}") from error
    return made


def _look(item: tuple[Prompt, Generation]) -> _Look:
    prompt, generation = item
    try:
        questions = read_questions(prompt.checks, f"prompt {prompt.id!r}")
        return _Look(generation.key, questions, read_image(generation))
    except BadInput as error:
        return _Look(generation.key, error=str(error))


def _unanswered(pairs: Sequence[tuple[Question, Answer]]) -> str:
    """Which questions have no answer, and why; "" if all have one."""
    bad = [(question, why) for question, answer in pairs if (why := _fault(answer))]
    told = [f"question {question.id} ({question.text!r}): {why}" for question, why in bad[:NAMED]]
    return "; ".join(_shortened(told, len(bad)))


def _fault(answer: Answer) -> str | None:
    if answer.error is not None:
        return answer.error
    return f"neither yes nor no: {answer.text!r}" if answer.yes is None else None


def _reason(pairs: Sequence[tuple[Question, Answer]]) -> str:
    """The questions that were not answered yes; "" if all were."""
    others = [question.text for question, answer in pairs if answer.yes is not True]
    return f"not yes: {'; '.join(_shortened(others[:NAMED], len(others)))}" if others else ""


def _shortened(told: list[str], number: int) -> list[str]:
    return told + ([f"and {number - len(told)} more"] if number > len(told) else [])


def _row(question: Question, answer: Answer) -> dict[str, Json]:
    error = {"error": why} if (why := _fault(answer)) else {}
    return {
        "id": question.id,
        "question": question.text,
        "answer": answer.text,
        "yes": answer.yes,
        "soft": answer.soft,
        "truncated": answer.truncated,
    } | error


def _counted(counted: QuestionScore) -> dict[str, Json]:
    return {"zeroed_by": list(counted.zeroed_by), "counted": counted.counted}


JUDGE = VqaJudge
