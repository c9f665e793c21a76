"""Names, colours and held-out combinations of the demo world, and the prompts written with them.

Checks follow GenEval's metadata schema (https://github.com/djghosh13/geneval, MIT): `tag`,
`include` with `class`, `count`, optional `color` and `position: [relation, target index]`, and
`exclude`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring")

# GenEval's ten colour names, each drawn in one sRGB value.
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 36),
    "orange": (250, 140, 16),
    "yellow": (250, 226, 30),
    "green": (34, 150, 56),
    "blue": (30, 74, 214),
    "purple": (124, 36, 170),
    "pink": (255, 140, 190),
    "brown": (122, 70, 28),
    "black": (16, 16, 18),
    "white": (252, 252, 252),
}
COLORS = tuple(PALETTE)
BACKGROUND = (138, 144, 150)

RELATIONS = ("left of", "right of", "above", "below")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
NUMBERS = ("zero", "one", "two", "three", "four")
PROMPT_HEADS = (
    "a photo of",
    "a picture of",
    "an image of",
    "a drawing of",
    "a sketch of",
    "a painting of",
    "an illustration of",
    "a rendering of",
)

# Held out of training images and captions: one colour for each shape, and four pairs of shapes that
# never share an image. The suite marks prompts that need them `unseen`.
HELD_OUT_COLORS = frozenset(
    {
        ("circle", "orange"),
        ("square", "purple"),
        ("triangle", "white"),
        ("diamond", "red"),
        ("star", "green"),
        ("cross", "yellow"),
        ("heart", "blue"),
        ("ring", "brown"),
    }
)
HELD_OUT_PAIRS = frozenset(
    frozenset(pair)
    for pair in (("circle", "heart"), ("square", "star"), ("triangle", "ring"), ("diamond", "cross"))
)

Checks = dict[str, Any]


def is_held_out(objects: Iterable[tuple[str, str | None]]) -> bool:
    """Whether a list of (shape, colour or None) contains a held-out combination."""
    pairs = list(objects)
    names = {shape for shape, _ in pairs}
    return any(pair in HELD_OUT_COLORS for pair in pairs) or any(p <= names for p in HELD_OUT_PAIRS)


def needs_held_out(checks: Checks) -> bool:
    """Whether a prompt's checks ask for a combination that no training image shows."""
    return is_held_out((item["class"], item.get("color")) for item in checks["include"])


def with_article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a shape's name."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def noun_phrase(item: Checks) -> str:
    """`three circles`, `a red star`: one entry of `include` in words."""
    color = f"{item['color']} " if "color" in item else ""
    if item["count"] == 1:
        return with_article(color + str(item["class"]))
    return f"{NUMBERS[item['count']]} {color}{plural(item['class'])}"


def write_prompt(tag: str, include: Sequence[Checks], head: str = PROMPT_HEADS[0]) -> str:
    """The prompt for checks, in GenEval's wording: `a photo of a star left of a ring`."""
    if tag == "position":
        target, item = include
        return f"{head} {noun_phrase(item)} {item['position'][0]} {noun_phrase(target)}"
    return f"{head} {' and '.join(noun_phrase(item) for item in include)}"


def all_words() -> list[str]:
    """Every word that a prompt or caption of the demo world can contain, sorted."""
    texts = [*PROMPT_HEADS, *SHAPES, *map(plural, SHAPES), *COLORS, *RELATIONS, *NUMBERS[1:], "a an and"]
    return sorted({word for text in texts for word in text.split()})
