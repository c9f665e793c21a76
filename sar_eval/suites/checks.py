"""Check GenEval's metadata in a prompt's `checks`: no verdict on it may be certain beforehand."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any, TypeGuard

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.suites.geneval.vocabulary import CLASSES, COLORS, RELATIONS
from sar_eval.suites.shapes.vocabulary import SHAPES
from sar_eval.types import Json, Prompt

KNOWN_CLASSES = frozenset(CLASSES) | frozenset(SHAPES)
FEW = 12  # classes that a message lists
KEYS = {"include": ("class", "count", "color", "position"), "exclude": ("class", "count")}
_OTHER_WORDS = {
    "person": "man, men, woman, women, boy, girl, kid, child, children, people, human, pedestrian",
    "airplane": "aeroplane, plane, jet, aircraft",
    "backpack": "bookbag, rucksack",
    "bicycle": "bike",
    "boat": "ship",
    "cell phone": "phone, cellphone, mobile phone, smartphone, telephone",
    "circle": "disc, disk",
    "computer mouse": "mouse, mice",
    "couch": "sofa",
    "cup": "mug",
    "diamond": "rhombus",
    "dining table": "table, desk, diningtable",
    "donut": "doughnut",
    "fire hydrant": "hydrant",
    "hair drier": "hair dryer, hairdryer, blow dryer, hairdrier",
    "handbag": "purse",
    "motorcycle": "motorbike",
    "potted plant": "plant, houseplant, pottedplant",
    "refrigerator": "fridge",
    "sports ball": "ball",
    "suitcase": "luggage",
    "tv": "television, monitor, tv monitor, tvmonitor",
    "tv remote": "remote control",
    "wine glass": "glass, wineglass",
}
# What people, COCO's other lists and dictionaries call the classes.
SYNONYMS = {word: name for name, words in _OTHER_WORDS.items() for word in words.split(", ")}


def check_geneval(checks: dict[str, Any], where: str) -> list[str]:
    """Refuse GenEval metadata that no verdict can be decided on; returns the classes that no judge knows.

    Raises:
        BadInput: an empty `include`, an entry without class or count, an unknown key, colour or relation.
    """
    if checks.get("include") == []:
        raise BadInput(f"{where}: include is empty: every image would be correct")
    return [
        name
        for field in KEYS
        for name in _check_entries(field, checks.get(field, []), where)
        if name not in KNOWN_CLASSES
    ]


def check_classes(prompts: Iterable[Prompt], known: Collection[str], judge: str) -> None:
    """Refuse prompts whose objects a judge cannot know: its verdict would be the same on every image.

    Raises:
        BadInput: naming the prompt, the class and the nearest one that the judge knows.
    """
    known = frozenset(known)
    for prompt in prompts:
        if isinstance(prompt.checks, dict) and "include" in prompt.checks:
            for field in KEYS:
                for entry in prompt.checks.get(field, []):
                    if entry["class"] not in known:
                        raise BadInput(
                            f"prompt {prompt.id}: judge {judge!r} knows no class "
                            f"{describe_class(entry['class'], known)}"
                        )


def describe_class(name: str, known: Collection[str] = KNOWN_CLASSES) -> str:
    """An unknown class in quotes, with the nearest known one, or all of a few."""
    if near := nearest_class(name, known):
        return f"{shorten(name)} (did you mean {near!r}?)"
    return shorten(name) + (f" (known are {', '.join(sorted(known))})" if len(known) <= FEW else "")


def nearest_class(name: str, known: Collection[str] = KNOWN_CLASSES) -> str:
    """The known class that is meant by another word, a plural or in another case; "" if none is near."""
    word = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    forms = [word, *_singulars(word)]
    for form in [*forms, *(SYNONYMS[form] for form in forms if form in SYNONYMS)]:
        if form in known:
            return form
    for form in forms:  # `keyboard`, `red car`
        if parts := [one for one in known if _is_part(form, one)]:
            return min(parts, key=lambda one: (abs(len(one) - len(form)), one))
    return next(iter(difflib.get_close_matches(word, sorted(known), 1)), "")


def _singulars(word: str) -> list[str]:
    endings = (("ies", "y"), ("ves", "fe"), ("ves", "f"), ("es", ""), ("s", ""))
    return [word.removesuffix(end) + new for end, new in endings if word.endswith(end)]


def _is_part(form: str, known: str) -> bool:
    return f" {form} " in f" {known} " or f" {known} " in f" {form} "


def _check_entries(field: str, entries: Any, where: str) -> list[str]:
    """The classes that are named."""
    if not isinstance(entries, list):
        raise BadInput(f"{where}: {field} must be a list of objects, not {shorten(entries)}")
    for index, entry in enumerate(entries):
        problem = _entry_problem(entry, KEYS[field])
        if not problem and field == "include":
            problem = _color_problem(entry) or _position_problem(entry, index)
        if problem:
            raise BadInput(f"{where}: {field}[{index}] {problem}")
    return [entry["class"] for entry in entries]


def _entry_problem(entry: Any, keys: Collection[str]) -> str:
    """What is wrong with the keys, class and count of one entry ("" if nothing)."""
    if not isinstance(entry, dict):
        return f"must be an object with class and count, not {shorten(entry)}"
    if unknown := [key for key in entry if key not in keys]:
        near = difflib.get_close_matches(unknown[0].lower(), keys, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(keys)}"
        return f"has an unknown key {shorten(unknown[0])}: {hint}"
    if not isinstance(name := entry.get("class"), str) or not name.strip():
        return f"needs a class (a name), not {shorten(name)}"
    if not _is_whole(count := entry.get("count")) or count < 1:
        return f"needs a count (a whole number >= 1), not {shorten(count)}"
    return ""


def _color_problem(entry: dict[str, Any]) -> str:
    if "color" not in entry or (color := entry["color"]) in COLORS:
        return ""
    if not isinstance(color, str) or not color.strip():
        return f"has a color that is not a name: {shorten(color)}"
    near = difflib.get_close_matches(color.strip().lower(), COLORS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"has the color {shorten(color)}, which no judge can name: {hint}known are {', '.join(COLORS)}"


def _position_problem(entry: dict[str, Any], index: int) -> str:
    if "position" not in entry:
        return ""
    position = entry["position"]
    if not isinstance(position, list) or len(position) != 2:
        return f"has a position that is not [relation, index]: {shorten(position)}"
    relation, target = position
    if relation not in RELATIONS:
        return f"has a position that is none of {', '.join(RELATIONS)}: {shorten(relation)}"
    if not _is_whole(target) or not 0 <= target < index:
        return (
            f"has a position relative to {shorten(target)}: give the index of an earlier entry of include"
        )
    return ""


def _is_whole(value: Json) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
