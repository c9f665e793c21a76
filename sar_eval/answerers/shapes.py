"""Answers questions about plain coloured shapes by finding them in the pixels (for the demo world)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_eval.suites.shapes.detect import detect
from sar_eval.suites.shapes.questions import ShapeQuestion, parse_question
from sar_eval.types import Answer, Detection

VERSION = "1"
THRESHOLD = 0.6  # minimum score of a detection, as in the recipes of the shapes judge


class ShapesAnswerer:
    """Answers every question that `suites.shapes.questions` writes; any other one is an error.

    An answer has no `soft` score: a detection's score is no probability of yes.
    """

    version = VERSION
    cost = 0.1  # GFLOP a picture

    def __init__(self, *, device: str = "cpu") -> None:
        """`device` is ignored: there is no network."""
        del device

    def __enter__(self) -> Self:
        # Workers are processes, one for each core: OpenCV's own threads would compete with them.
        cv2.setNumThreads(1)
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image (RGB uint8 `[H, W, 3]`), in the same order."""
        for pixels, questions in images:
            detections = [detection for detection in detect(pixels) if detection.score >= THRESHOLD]
            yield [_answer(question, detections) for question in questions]


def _answer(text: str, detections: Sequence[Detection]) -> Answer:
    question = parse_question(text)
    if question is None:
        return Answer(error=f"the answerer shapes knows no such question: {text!r}")
    yes = _is_true(question, detections)
    return Answer("yes" if yes else "no", yes)


def _is_true(question: ShapeQuestion, detections: Sequence[Detection]) -> bool:
    """Whether the detections make the answer yes; nothing is true of a shape that is absent."""
    shapes = [detection for detection in detections if detection.name == question.name]
    if question.kind == "count":
        return len(shapes) == question.number
    if question.kind == "color":
        return bool(shapes) and all(shape.color == question.color for shape in shapes)
    if question.kind == "relation":
        others = [detection for detection in detections if detection.name == question.other]
        pairs = [(shape, other) for shape in shapes for other in others]
        return bool(pairs) and all(_relation(shape, other) == question.relation for shape, other in pairs)
    return bool(shapes)


def _relation(shape: Detection, other: Detection) -> str:
    """Where `shape` lies relative to `other`, along the axis on which their centres differ more."""
    dx, dy = (
        (shape.box[axis] + shape.box[axis + 2] - other.box[axis] - other.box[axis + 2]) / 2
        for axis in (0, 1)
    )
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


ANSWERER = ShapesAnswerer
