"""Sample scenes of the demo world: shapes, their colours and their layout."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sar_eval.suites.shapes.vocabulary import (
    BACKGROUND,
    COLORS,
    PALETTE,
    PROMPT_HEADS,
    RELATIONS,
    SHAPES,
    TASKS,
    Checks,
    is_held_out,
    write_prompt,
)

CANVAS = 64
GAP = 4  # free pixels between two shapes and to the border


# clean: true captions, plain colours, on a lattice of 4 pixels; tidy: one size, on a lattice of 8 (one
# visual token), mostly pairs whose colours are named, in reading order unless there is a relation;
# noisy: clean but tinted, with unmentioned extra shapes and sometimes wrong captions; grainy: noisy, at
# any position and size (and with noise in its pixels, see `train.scenes`).
Style = Literal["clean", "tidy", "noisy", "grainy"]
LATTICE: dict[Style, int] = {"clean": 4, "tidy": 8, "noisy": 4, "grainy": 1}
NOISY_STYLES = ("noisy", "grainy")
PAIR_TASKS = ("two_object", "position", "color_attr")

Square = tuple[int, int, int]  # x, y, side


@dataclass(frozen=True, slots=True)
class Shape:
    """One drawn shape: its bounding square starts at (x, y) and is `size` pixels wide."""

    name: str
    color: str
    x: int
    y: int
    size: int
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """The contents of an image, and its caption."""

    shapes: tuple[Shape, ...]
    background: tuple[int, int, int]
    caption: str
    checks: Checks


def sample_checks(tag: str, rng: random.Random) -> Checks:
    """Random checks of one task, with their prompt, in GenEval's schema (may be held out)."""
    first, second = rng.sample(SHAPES, 2)
    one: list[Checks] = [{"class": first, "count": 1}]
    two: list[Checks] = [*one, {"class": second, "count": 1}]
    include = one if tag in ("single_object", "colors", "counting") else two
    exclude = []
    if tag == "counting":
        include[0]["count"] = rng.randint(2, 4)
        exclude = [{"class": first, "count": include[0]["count"] + 1}]
    if tag in ("colors", "color_attr"):
        for item, color in zip(include, rng.sample(COLORS, 2), strict=False):
            item["color"] = color
    if tag == "position":
        include[1]["position"] = [rng.choice(RELATIONS), 0]
    checks: Checks = {"tag": tag, "include": include}
    if exclude:
        checks["exclude"] = exclude
    checks["prompt"] = write_prompt(tag, include, rng.choice(PROMPT_HEADS))
    return checks


def sample_scene(rng: random.Random, *, style: Style, tag: str | None = None) -> Scene:
    """A training scene without held-out combinations; the caption is true unless the style is noisy."""
    while True:
        tasks = (*TASKS, *PAIR_TASKS, "position", "color_attr") if style == "tidy" else TASKS
        checks = sample_checks(tag or rng.choice(tasks), rng)
        if style == "tidy" and rng.random() < 0.7:
            checks = name_colors(checks, rng)
        scene = arrange_scene(checks, rng, style=style)
        if scene is not None:
            return scene


def name_colors(checks: Checks, rng: random.Random) -> Checks:
    """The same checks with a colour for every object, also in the prompt."""
    include = [{"color": rng.choice(COLORS), **item} for item in checks["include"]]
    prompt = write_prompt(checks["tag"], include, rng.choice(PROMPT_HEADS))
    return checks | {"include": include, "prompt": prompt}


def arrange_scene(checks: Checks, rng: random.Random, *, style: Style, train: bool = True) -> Scene | None:
    """Sample one scene that meets `checks`; None if no free layout was found this time.

    With `train`, also None for a scene with a held-out combination.
    """
    wanted = [(str(i["class"]), i.get("color"), int(i["count"])) for i in checks["include"]]
    if style in NOISY_STYLES and rng.random() < 0.3:
        wanted.append((rng.choice(SHAPES), None, 1))
    groups = [(name, color or _sample_color(name, rng, train), n) for name, color, n in wanted]
    objects = [(name, color) for name, color, n in groups for _ in range(n)]
    if train and is_held_out(objects):
        return None
    squares = _sample_layout(len(objects), checks, rng, style)
    if squares is None:
        return None
    shapes = tuple(
        Shape(name, color, x, y, size, _tint(PALETTE[color], rng, style))
        for (name, color), (x, y, size) in zip(objects, squares, strict=True)
    )
    caption = str(_noisy_caption(checks, rng) if style in NOISY_STYLES else checks["prompt"])
    return Scene(shapes, _tint(BACKGROUND, rng, style), caption, checks)


def _sample_color(name: str, rng: random.Random, train: bool) -> str:
    return rng.choice([c for c in COLORS if not (train and is_held_out([(name, c)]))])


def _tint(rgb: tuple[int, int, int], rng: random.Random, style: Style) -> tuple[int, int, int]:
    if style not in NOISY_STYLES:
        return rgb
    r, g, b = (min(255, max(0, value + rng.randint(-10, 10))) for value in rgb)
    return r, g, b


def _noisy_caption(checks: Checks, rng: random.Random) -> str:
    """The true caption, or (with probability 1/6) another one of the same task."""
    if rng.random() >= 1 / 6:
        return str(checks["prompt"])
    while True:
        other = sample_checks(checks["tag"], rng)
        if not is_held_out((i["class"], i.get("color")) for i in other["include"]):
            return str(other["prompt"])


def _sample_layout(number: int, checks: Checks, rng: random.Random, style: Style) -> list[Square] | None:
    """Sample disjoint squares for `number` shapes by rejection, the second in its relation to the first."""
    relation = next((i["position"][0] for i in checks["include"] if "position" in i), None)
    for _ in range(30):
        squares: list[Square] = []
        for _ in range(40 * number):
            square = _sample_square(rng, style, number)
            fits = len(squares) != 1 or relation is None or _holds(relation, square, squares[0])
            if fits and _disjoint([*squares, square]):
                squares.append(square)
            if len(squares) == number:
                return _tidy_order(squares, relation) if style == "tidy" else squares
    return None


def _tidy_order(squares: list[Square], relation: str | None) -> list[Square]:
    """Sort into reading order if there is no relation; align left and right of on one line."""
    if relation is None:
        return sorted(squares, key=lambda square: (square[1], square[0]))
    if relation in ("above", "below"):
        return squares
    (_, y, _), (x, _, size) = squares
    return [squares[0], (x, y, size)]


def _sample_square(rng: random.Random, style: Style, number: int) -> Square:
    """A square on the style's lattice, for a scene of `number` shapes."""
    if style == "grainy":
        size, step = rng.randint(18, 22 if number > 2 else 28), 1
    else:
        tight = number > 2 or style == "tidy"
        size, step = (20 if tight else rng.choice((20, 24))), LATTICE[style]
    first, last = -(-GAP // 2 // step), (CANVAS - GAP // 2 - size) // step
    return rng.randint(first, last) * step, rng.randint(first, last) * step, size


def _disjoint(squares: Sequence[Square]) -> bool:
    """Whether all squares are at least `GAP` pixels apart."""
    return all(
        ax + a + GAP <= bx or bx + b + GAP <= ax or ay + a + GAP <= by or by + b + GAP <= ay
        for i, (ax, ay, a) in enumerate(squares)
        for bx, by, b in squares[i + 1 :]
    )


def _holds(relation: str, square: Square, target: Square) -> bool:
    """Whether the relation clearly holds: the offset across is at most half of that along it."""
    dx = (square[0] + square[2] / 2) - (target[0] + target[2] / 2)
    dy = (square[1] + square[2] / 2) - (target[1] + target[2] / 2)
    along, across = {"left of": (-dx, dy), "right of": (dx, dy), "above": (-dy, dx), "below": (dy, dx)}[
        relation
    ]
    return along > 0 and abs(across) <= along / 2
