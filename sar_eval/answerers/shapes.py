"""Answers questions about plain coloured shapes by reading the pixels (for the demo world)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_eval.suites.shapes.detect import detect
from sar_eval.suites.shapes.questions import ShapeQuestion, parse_question
from sar_eval.types import Answer, Detection

VERSION = "1"
THRESHOLD = 0.6  # overlap from which a region counts as its best shape; the shapes judge's bar too


class ShapesAnswerer:
    """Knows every question of `shapes.questions`; any other one is an error, not a guess.

    An answer has no `soft` score: how well an outline fits is no probability of yes.
    """

    version = VERSION

    def __init__(self, *, device: str = "cpu") -> None:
        """`device` changes nothing here, there is no network."""
        del device

    def __enter__(self) -> Self:
        # Workers are processes, one for each core: OpenCV's own threads would fight them for it.
        cv2.setNumThreads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image (RGB uint8 `[H, W, 3]`), in the order given."""
        for pixels, questions in images:
            found = [detection for detection in detect(pixels) if detection.score >= THRESHOLD]
            yield [_answer(question, found) for question in questions]


def _answer(question: str, found: Sequence[Detection]) -> Answer:
    asked = parse_question(question)
    if asked is None:
        return Answer(error=f"the answerer shapes knows no such question: {question!r}")
    yes = _holds(asked, found)
    return Answer("yes" if yes else "no", yes)


def _holds(asked: ShapeQuestion, found: Sequence[Detection]) -> bool:
    """Whether the shapes that were found make it true; of what is not there, nothing is true."""
    own = [detection for detection in found if detection.name == asked.name]
    if asked.kind == "count":
        return len(own) == asked.number
    if asked.kind == "color":
        return bool(own) and all(detection.color == asked.color for detection in own)
    if asked.kind == "relation":
        others = [detection for detection in found if detection.name == asked.other]
        pairs = [(one, other) for one in own for other in others]
        return bool(pairs) and all(_relation(one, other) == asked.relation for one, other in pairs)
    return bool(own)


def _relation(one: Detection, other: Detection) -> str:
    """How `one` stands to `other`, by the axis along which their centres lie further apart."""
    dx, dy = (
        (one.box[axis] + one.box[axis + 2] - other.box[axis] - other.box[axis + 2]) / 2 for axis in (0, 1)
    )
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


ANSWERER = ShapesAnswerer
