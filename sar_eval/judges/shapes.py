"""Detects plain coloured shapes without a network and applies GenEval's rules (for the demo world)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Self

import cv2

from sar_eval.errors import BadInput
from sar_eval.images.files import read_image
from sar_eval.suites.geneval.verdict import decide_verdict, read_thresholds
from sar_eval.suites.shapes.detect import detect
from sar_eval.suites.shapes.vocabulary import SHAPES
from sar_eval.types import Detection, Generation, Json, Prompt, Verdict

VERSION = "1"


class ShapesJudge:
    """GenEval's verdict on shapes found by segmentation; the options are GenEval's thresholds."""

    classes = SHAPES

    def __init__(self, *, device: str = "cpu", **options: float) -> None:
        """Thresholds by name; `device` is ignored: there is no network.

        Raises:
            BadInput: an option is no threshold of GenEval's, or not a number of its type.
        """
        del device
        self.thresholds = read_thresholds(options, "shapes")
        self.version = VERSION

    def __enter__(self) -> Self:
        # Workers are processes, one for each core: OpenCV's own threads would compete with them.
        cv2.setNumThreads(1)
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; an unreadable one gets an error instead of a score."""
        for prompt, generation in items:
            try:
                yield self._judge_one(prompt, generation)
            except BadInput as error:
                yield Verdict(generation.key, "shapes", VERSION, error=str(error))

    def _judge_one(self, prompt: Prompt, generation: Generation) -> Verdict:
        if not isinstance(prompt.checks, dict) or "include" not in prompt.checks:
            raise BadInput(f"prompt {prompt.id!r} has no GenEval checks (include)")
        ruling = decide_verdict(prompt.checks, detect(read_image(generation)), self.thresholds)
        return Verdict(
            generation.key,
            "shapes",
            VERSION,
            score=float(ruling.correct),
            passed=ruling.correct,
            reason=ruling.reason,
            evidence=_evidence(ruling.kept.values()),
        )


def _evidence(kept: Iterable[Sequence[Detection]]) -> Json:
    return {"boxes": [asdict(detection) for detections in kept for detection in detections]}


JUDGE = ShapesJudge
