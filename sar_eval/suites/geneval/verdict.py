"""GenEval's verdict: which boxes count, when an image is correct, and why it is not.

Written from the behaviour of `evaluation/evaluate_images.py` in
https://github.com/djghosh13/geneval (Ghosh et al., arXiv 2310.11513), quirks included: counting
has its own threshold, colour and position look only at the top `count` boxes of a class, a
position of neither side is reported as `found  target`.
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
        threshold: least detector score of a box.
        counting_threshold: the same for prompts of the task `counting`.
        max_objects: most boxes kept of one class.
        max_overlap: greatest intersection over union with a better box of the class; 1 is off.
        position_threshold: share of the two boxes' sizes by which centres must differ.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1


def read_thresholds(options: Mapping[str, Json], judge: str) -> Thresholds:
    """Thresholds by name, the official value where one is not given.

    Raises:
        BadInput: an option is none of them, or not a number of its kind.
    """
    known = [field.name for field in fields(Thresholds)]
    if unknown := set(options) - set(known):
        raise BadInput(f"judge {judge!r} has no option {min(unknown)!r}; it has {sorted(known)}")
    for name, value in options.items():
        # A bool would quietly count as 0 or 1.
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
    """Whether an image is correct, why not (one clause a line), and the boxes that counted."""

    correct: bool
    reason: str
    kept: Mapping[str, tuple[Detection, ...]]


def rule(checks: Json, detections: Sequence[Detection], options: Thresholds) -> Ruling:
    """Judge one image's detections against a prompt's GenEval metadata.

    `Detection.color` must be set on boxes of classes whose colour is asked for.
    """
    kept = keep(detections, checks.get("tag") == "counting", options)
    faults: list[str] = []
    matched: list[Sequence[Detection] | None] = []
    for wanted in checks.get("include", []):
        found = kept.get(wanted["class"], ())[: wanted["count"]]
        fault = _fault(wanted, found, matched, options.position_threshold)
        faults += fault
        matched.append(None if fault else found)
    for unwanted in checks.get("exclude", []):
        number = len(kept.get(unwanted["class"], ()))
        if number >= unwanted["count"]:
            faults.append(f"expected {unwanted['class']}<{unwanted['count']}, found {number}")
    return Ruling(not faults, "\n".join(faults), kept)


def keep(
    detections: Sequence[Detection], counting: bool, options: Thresholds
) -> dict[str, tuple[Detection, ...]]:
    """Boxes by class, best first, after score threshold, number limit and suppression."""
    least = options.counting_threshold if counting else options.threshold
    by_class: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        if detection.score > least:
            by_class.setdefault(detection.name, []).append(detection)
    return {
        name: _suppress(found[: options.max_objects], options.max_overlap)
        for name, found in by_class.items()
    }


def _suppress(ordered: Sequence[Detection], max_overlap: float) -> tuple[Detection, ...]:
    if max_overlap >= 1:
        return tuple(ordered)
    left, kept = list(ordered), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [d for d in left if iou(best.box, d.box) < max_overlap]
    return tuple(kept)


def _fault(
    wanted: Json,
    found: Sequence[Detection],
    matched: Sequence[Sequence[Detection] | None],
    position_threshold: float,
) -> list[str]:
    name, count = wanted["class"], wanted["count"]
    if len(found) < count:
        faults = [f"expected {name}>={count}, found {len(found)}"]
        colored = False
    else:
        faults = _color_fault(wanted, found)
        colored = not faults
    if "position" in wanted and colored:
        relation, index = wanted["position"]
        faults += _position_fault(name, relation, found, matched[index], position_threshold)
    return faults


def _color_fault(wanted: Json, found: Sequence[Detection]) -> list[str]:
    if "color" not in wanted:
        return []
    color, colors = wanted["color"], Counter(d.color for d in found)
    if colors[color] >= wanted["count"]:
        return []
    others = " and ".join(f"{n} {c}" for c, n in colors.items() if c != color)
    name = f"{color} {wanted['class']}"
    return [f"expected {name}>={wanted['count']}, found {colors[color]} {color}; and {others}"]


def _position_fault(
    name: str,
    relation: str,
    found: Sequence[Detection],
    targets: Sequence[Detection] | None,
    threshold: float,
) -> list[str]:
    if targets is None:
        return [f"no target for {name} to be {relation}"]
    for detection in found:
        for target in targets:
            seen = relations(detection.box, target.box, threshold)
            if relation not in seen:
                return [f"expected {name} {relation} target, found {' and '.join(seen)} target"]
    return []


def relations(box: Box, target: Box, threshold: float) -> tuple[str, ...]:
    """Where `box` lies as seen from `target`: none, one or two of left of, right of, above, below."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = box, target
    offset_x, offset_y = (x0 + x1) / 2 - (u0 + u1) / 2, (y0 + y1) / 2 - (v0 + v1) / 2
    dx = _beyond(offset_x, threshold * (x1 - x0 + u1 - u0))
    dy = _beyond(offset_y, threshold * (y1 - y0 + v1 - v0))
    if abs(dx) < 1e-3 and abs(dy) < 1e-3:
        return ()
    # The script divides by the offset before the slack is taken off; so a near diagonal is nothing.
    norm = math.hypot(offset_x, offset_y)
    dx, dy = dx / norm, dy / norm
    told = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return tuple(name for name, holds in told.items() if holds)


def _beyond(offset: float, slack: float) -> float:
    """The offset less the slack, towards zero and not past it."""
    return math.copysign(max(abs(offset) - slack, 0.0), offset)


def iou(a: Box, b: Box) -> float:
    """Intersection over union with mmdet's inclusive pixels (+1 on each side), as the script has it."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    both = width * height

    def area(box: Box) -> float:
        return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)

    return both / (area(a) + area(b) - both)
