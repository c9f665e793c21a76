"""How nearly a picture of the demo world shows what was asked: a number that rewards each step towards it.

The verdict of the judge `shapes` is yes or no, and where all pictures of a prompt get the same there is
nothing to learn. Here every asked object gets, of the region of the picture that suits it best,

    overlap with the asked outline * exp(-distance of the colour / 20) * relation

and the grade is the mean over the objects, times asked / (asked + surplus) for what was not asked: else
a picture full of shapes would answer every prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sar_eval.suites.shapes.detect import Region
from sar_eval.types import Json

COLOR_SCALE = 20.0  # CIELAB distance at which a colour counts 1/e; the palette's are 29 to 175 apart
DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
WITHOUT_TARGET = 0.5  # of a relation whose other object is missing: neither right nor wrong


@dataclass(frozen=True, slots=True)
class Grade:
    """A picture's grade.

    Attributes:
        score: 0 (nothing of it) to 1 (all of it).
        items: for each entry of `include`, how well its relation holds, and its value.
        boxes: the regions given to an entry (its number is `item`), as reports draw them; `score` is the
            overlap with the outline, `color_match` 1 for the asked colour or where none is.
        surplus: regions that no entry asked for.
    """

    score: float
    items: tuple[Json, ...]
    boxes: tuple[Json, ...]
    surplus: int


def grade(checks: Mapping[str, Any], regions: Sequence[Region]) -> Grade:
    """Grade the regions of a picture against GenEval's metadata of the demo world.

    An entry of `count` n is n objects; one without a region counts 0. Regions are given to objects so that
    the sum of their values is greatest.
    """
    wanted = checks["include"]
    values = [_values(entry, regions) for entry in wanted]
    given = _assign(wanted, values)
    items = []
    for number, (entry, own) in enumerate(zip(wanted, given, strict=True)):
        relation = _relation(entry, own, given, regions)
        value = relation * sum(float(values[number][index]) for index in own) / entry["count"]
        items.append({"asked": entry, "relation": round(relation, 4), "value": value})
    asked = sum(entry["count"] for entry in wanted)
    surplus = len(regions) - sum(map(len, given))
    mean = sum(item["value"] for item in items) / len(items)
    boxes = [_box(n, wanted[n], regions[index]) for n, own in enumerate(given) for index in own]
    return Grade(min(1.0, mean * asked / (asked + surplus)), tuple(items), tuple(boxes), surplus)


def _values(entry: Json, regions: Sequence[Region]) -> NDArray[np.float64]:
    """How well each region would be one object of the entry, 0 to 1."""
    found = [region.overlaps()[entry["class"]] * _color_value(entry, region) for region in regions]
    return np.array(found, np.float64)


def _color_value(entry: Json, region: Region) -> float:
    if "color" not in entry:
        return 1.0
    return math.exp(-region.color_distances()[entry["color"]] / COLOR_SCALE)


def _assign(wanted: Sequence[Json], values: Sequence[NDArray[np.float64]]) -> list[list[int]]:
    """The regions of each entry, each region to at most one."""
    # More objects of an entry than there are regions cannot get one.
    owners = [n for n, entry in enumerate(wanted) for _ in range(min(entry["count"], len(values[n])))]
    given: list[list[int]] = [[] for _ in wanted]
    if owners:
        rows, columns = linear_sum_assignment(np.stack([values[n] for n in owners]), maximize=True)
        for row, column in zip(rows, columns, strict=True):
            given[owners[row]].append(int(column))
    return given


def _relation(
    entry: Json, own: Sequence[int], given: Sequence[Sequence[int]], regions: Sequence[Region]
) -> float:
    """How well the asked relation holds: 1 within 60 degrees of its direction, 0 for its opposite.

    GenEval's verdict has the same 60 degrees (a component above 0.5 of a unit vector). Of several pairs
    the worst counts.
    """
    if "position" not in entry or not own:
        return 1.0
    relation, target = entry["position"]
    if not given[target]:
        return WITHOUT_TARGET
    offsets = [
        np.subtract(_centre(regions[index]), _centre(regions[other]))
        for index in own
        for other in given[target]
    ]
    return min(_direction_value(offset, DIRECTIONS[relation]) for offset in offsets)


def _direction_value(offset: NDArray[np.float64], direction: tuple[int, int]) -> float:
    length = float(np.linalg.norm(offset))
    cosine = float(offset @ np.array(direction)) / length if length else 0.0
    return min(1.0, (1 + cosine) / 1.5)


def _centre(region: Region) -> tuple[float, float]:
    x0, y0, x1, y1 = region.box
    return (x0 + x1) / 2, (y0 + y1) / 2


def _box(item: int, entry: Json, region: Region) -> dict[str, Json]:
    return {
        "item": item,
        "name": entry["class"],
        "box": list(region.box),
        "score": round(region.overlaps()[entry["class"]], 4),
        "color_match": round(_color_value(entry, region), 4),
    }
