"""Grades plain coloured shapes from 0 to 1 (for the demo world): a reward where `shapes` says yes or no."""

from __future__ import annotations

from sar_eval.errors import BadInput
from sar_eval.images.files import decode_image
from sar_eval.suites.checks import check_classes, check_geneval
from sar_eval.suites.shapes.detect import find_regions
from sar_eval.suites.shapes.grade import Grade, grade
from sar_eval.suites.shapes.segmenting import SegmentingJudge
from sar_eval.suites.shapes.vocabulary import SHAPES
from sar_eval.types import Generation, Prompt, Verdict

VERSION = "1"


class ShapesSoftJudge(SegmentingJudge):
    """The grade of `suites.shapes.grade`; without options.

    A picture of one colour has grade 0 and no error: an empty canvas is what a weak checkpoint draws, and
    without a reward it would never learn that this is worse than anything.
    """

    name, version, classes = "shapes-soft", VERSION, SHAPES
    fold = "scores"  # a mean grade is no share of correct images

    def __init__(self, *, device: str = "cpu") -> None:
        """`device` is ignored: there is no network."""
        del device

    def judge_one(self, prompt: Prompt, generation: Generation) -> Verdict:
        """The grade of one image (see `SegmentingJudge`)."""
        if not isinstance(prompt.checks, dict) or not prompt.checks.get("include"):
            raise BadInput(f"prompt {prompt.id!r} has no GenEval checks (include)")
        check_geneval(prompt.checks, f"prompt {prompt.id!r}")
        check_classes([prompt], SHAPES, self.name)
        if generation.image is None:
            raise BadInput(f"no image: {generation.error}")
        found = grade(prompt.checks, find_regions(decode_image(generation.image)))
        return Verdict(
            generation.key,
            self.name,
            self.version,
            score=found.score,
            reason=_reason(found),
            evidence={"boxes": list(found.boxes), "items": list(found.items), "surplus": found.surplus},
        )


def _reason(found: Grade) -> str:
    """Each asked object with its value."""
    parts = [f"{item['asked']['class']} {item['value']:.2f}" for item in found.items]
    return ", ".join([*parts, *([f"{found.surplus} too many"] if found.surplus else [])])


JUDGE = ShapesSoftJudge
