"""Detects plain coloured shapes without a network and applies GenEval's rules (for the demo world)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from sar_eval.errors import BadInput
from sar_eval.images.files import read_image
from sar_eval.suites.geneval.verdict import decide_verdict, read_thresholds
from sar_eval.suites.shapes.detect import detect
from sar_eval.suites.shapes.segmenting import SegmentingJudge
from sar_eval.suites.shapes.vocabulary import SHAPES
from sar_eval.types import Detection, Generation, Json, Prompt, Verdict

VERSION = "1"


class ShapesJudge(SegmentingJudge):
    """GenEval's verdict on shapes found by segmentation; the options are GenEval's thresholds."""

    name, version, classes = "shapes", VERSION, SHAPES

    def __init__(self, *, device: str = "cpu", **options: float) -> None:
        """Thresholds by name; `device` is ignored: there is no network.

        Raises:
            BadInput: an option is no threshold of GenEval's, or not a number of its type.
        """
        del device
        self.thresholds = read_thresholds(options, "shapes")

    def judge_one(self, prompt: Prompt, generation: Generation) -> Verdict:
        """The verdict of one image (see `SegmentingJudge`)."""
        if not isinstance(prompt.checks, dict) or "include" not in prompt.checks:
            raise BadInput(f"prompt {prompt.id!r} has no GenEval checks (include)")
        ruling = decide_verdict(prompt.checks, detect(read_image(generation)), self.thresholds)
        return Verdict(
            generation.key,
            self.name,
            self.version,
            score=float(ruling.correct),
            passed=ruling.correct,
            reason=ruling.reason,
            evidence=_evidence(ruling.kept.values()),
        )


def _evidence(kept: Iterable[Sequence[Detection]]) -> Json:
    return {"boxes": [asdict(detection) for detections in kept for detection in detections]}


JUDGE = ShapesJudge
