"""GenEval's verdict: which boxes count, whether an image is correct, and why not.

Reimplemented from the behaviour of `evaluation/evaluate_images.py` in
https://github.com/djghosh13/geneval (Ghosh et al., arXiv 2310.11513), quirks included: counting
has its own threshold, colour and position use only the top `count` boxes of a class, and a
position on neither side is reported as `found  target`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from sar_eval.errors import BadInput
from sar_eval.types import Box, Detection, Json


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Options of the verdict with the official defaults.

    Attributes:
        threshold: a box counts if its detector score is higher.
        counting_threshold: the same for prompts of the task `counting`.
        max_objects: maximum number of boxes kept per class.
        max_overlap: a box is kept if its IoU with every better box of its class is lower; 1 disables this.
        position_threshold: offset between centres, as a share of the two boxes' summed sizes, that is
            subtracted before a direction is decided.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1


def read_thresholds(options: Mapping[str, Json], judge: str) -> Thresholds:
    """Thresholds from a judge's options, with the official values as defaults.

    Raises:
        BadInput: an option is unknown, or not a number of its kind.
    """
    names = [field.name for field in fields(Thresholds)]
    if unknown := set(options) - set(names):
        raise BadInput(f"judge {judge!r} has no option {min(unknown)!r}; it has {sorted(names)}")
    for name, value in options.items():
        # bool is a subclass of int.
        whole = isinstance(value, int) and not isinstance(value, bool)
        if name == "max_objects" and (not whole or value < 1):
            raise BadInput(
                f"option 'max_objects' of judge {judge!r} must be a whole number >= 1: {value!r}"
            )
        if not whole and not (isinstance(value, float) and math.isfinite(value)):
            raise BadInput(f"option {name!r} of judge {judge!r} must be a number: {value!r}")
    return Thresholds(**options)


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether an image is correct, why not (one reason per line), and the boxes that counted, by class."""

    correct: bool
    reason: str
    kept: Mapping[str, tuple[Detection, ...]]


def decide_verdict(checks: Json, detections: Sequence[Detection], options: Thresholds) -> Ruling:
    """Check one image's detections against a prompt's GenEval metadata.

    `Detection.color` must be set on boxes of classes for which the prompt names a colour.
    """
    kept = filter_detections(detections, checks.get("tag") == "counting", options)
    faults: list[str] = []
    matched: list[Sequence[Detection] | None] = []
    for wanted in checks.get("include", []):
        boxes = kept.get(wanted["class"], ())[: wanted["count"]]
        entry_faults = _include_faults(wanted, boxes, matched, options.position_threshold)
        faults += entry_faults
        matched.append(None if entry_faults else boxes)
    for unwanted in checks.get("exclude", []):
        number = len(kept.get(unwanted["class"], ()))
        if number >= unwanted["count"]:
            faults.append(f"expected {unwanted['class']}<{unwanted['count']}, found {number}")
    return Ruling(not faults, "\n".join(faults), kept)


def filter_detections(
    detections: Sequence[Detection], counting: bool, options: Thresholds
) -> dict[str, tuple[Detection, ...]]:
    """Boxes by class, best first, after score threshold, `max_objects` and non-maximum suppression."""
    min_score = options.counting_threshold if counting else options.threshold
    by_class: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        if detection.score > min_score:
            by_class.setdefault(detection.name, []).append(detection)
    return {
        name: _suppress_overlaps(boxes[: options.max_objects], options.max_overlap)
        for name, boxes in by_class.items()
    }


def _suppress_overlaps(ordered: Sequence[Detection], max_overlap: float) -> tuple[Detection, ...]:
    """Greedy non-maximum suppression of boxes sorted by score."""
    if max_overlap >= 1:
        return tuple(ordered)
    remaining, kept = list(ordered), []
    while remaining:
        best = remaining.pop(0)
        kept.append(best)
        remaining = [d for d in remaining if iou(best.box, d.box) < max_overlap]
    return tuple(kept)


def _include_faults(
    wanted: Json,
    boxes: Sequence[Detection],
    matched: Sequence[Sequence[Detection] | None],
    position_threshold: float,
) -> list[str]:
    """Faults of one `include` entry; `matched` has the boxes of the entries before it, None if faulty."""
    name, count = wanted["class"], wanted["count"]
    if len(boxes) < count:
        return [f"expected {name}>={count}, found {len(boxes)}"]
    faults = _color_faults(wanted, boxes)
    if "position" in wanted and not faults:
        relation, index = wanted["position"]
        return _position_faults(name, relation, boxes, matched[index], position_threshold)
    return faults


def _color_faults(wanted: Json, boxes: Sequence[Detection]) -> list[str]:
    if "color" not in wanted:
        return []
    color, colors = wanted["color"], Counter(d.color for d in boxes)
    if colors[color] >= wanted["count"]:
        return []
    others = " and ".join(f"{n} {c}" for c, n in colors.items() if c != color)
    name = f"{color} {wanted['class']}"
    return [f"expected {name}>={wanted['count']}, found {colors[color]} {color}; and {others}"]


def _position_faults(
    name: str,
    relation: str,
    boxes: Sequence[Detection],
    targets: Sequence[Detection] | None,
    threshold: float,
) -> list[str]:
    if targets is None:
        return [f"no target for {name} to be {relation}"]
    for detection in boxes:
        for target in targets:
            actual = spatial_relations(detection.box, target.box, threshold)
            if relation not in actual:
                return [f"expected {name} {relation} target, found {' and '.join(actual)} target"]
    return []


def spatial_relations(box: Box, target: Box, threshold: float) -> tuple[str, ...]:
    """Direction of `box` from `target`: none, one or two of left of, right of, above, below."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = box, target
    offset_x, offset_y = (x0 + x1) / 2 - (u0 + u1) / 2, (y0 + y1) / 2 - (v0 + v1) / 2
    dx = _soft_threshold(offset_x, threshold * (x1 - x0 + u1 - u0))
    dy = _soft_threshold(offset_y, threshold * (y1 - y0 + v1 - v0))
    if abs(dx) < 1e-3 and abs(dy) < 1e-3:
        return ()
    # The script normalises by the full offset, so near-diagonal boxes have no relation.
    norm = math.hypot(offset_x, offset_y)
    dx, dy = dx / norm, dy / norm
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return tuple(relation for relation, is_true in holds.items() if is_true)


def _soft_threshold(offset: float, slack: float) -> float:
    """Shrink the offset towards zero by `slack`."""
    return math.copysign(max(abs(offset) - slack, 0.0), offset)


def iou(a: Box, b: Box) -> float:
    """Intersection over union with mmdet's inclusive pixels (+1 on each side), as in the script."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    intersection = width * height

    def area(box: Box) -> float:
        return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)

    return intersection / (area(a) + area(b) - intersection)
