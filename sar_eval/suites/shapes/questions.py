"""Questions about scenes in a small closed grammar, and a suite of prompts with graphs of them.

The suite has the schema of DPG-Bench: each prompt comes with yes-or-no questions about entities,
colours, counts and relations, and with what each of them hangs on. `parse` reads what `write` wrote,
so that whoever answers knows every question that the suite can ask.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Literal

from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.shapes.scenes import name_colors, sample_checks
from sar_eval.suites.shapes.vocabulary import (
    COLORS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    Checks,
    article,
    needs_held_out,
    plural,
)
from sar_eval.types import Json

# The suite's tasks, each with the task of the shapes world that its prompts come from.
TASKS = {
    "color": "colors",
    "count": "counting",
    "two_colors": "color_attr",
    "relation": "position",
    "composition": "position",
}
COLORED = ("count", "composition")  # tasks whose prompts name a colour for everything
PATIENCE = 20_000  # draws in a row without a new prompt after which a task counts as used up
MOST = len(NUMBERS) - 1

Kind = Literal["entity", "count", "color", "relation"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks.

    Attributes:
        kind: whether there is `name`; exactly `number` of it; whether every one of it has `color`; or
            whether every one of it stands in `relation` to every `other`.
        name: of the shape.
        number: that the words of the question speak of (1 is singular; only `count` insists on it).
        color: of the palette.
        relation: `left of`, `right of`, `above` or `below`.
        other: the shape that the relation is to.
    """

    kind: Kind
    name: str
    number: int = 1
    color: str = ""
    relation: str = ""
    other: str = ""


def write(asked: Asked) -> str:
    """The question in words: `Is the circle red?`, `Are there exactly two stars?`."""
    verb = "Is" if asked.number == 1 else "Are"
    noun = asked.name if asked.number == 1 else plural(asked.name)
    if asked.kind == "entity":
        return f"{verb} there {article(noun) if asked.number == 1 else noun}?"
    if asked.kind == "count":
        return f"{verb} there exactly {NUMBERS[asked.number]} {noun}?"
    if asked.kind == "color":
        return f"{verb} the {noun} {asked.color}?"
    return f"{verb} the {noun} {asked.relation} the {asked.other}?"


def parse(text: str) -> Asked | None:
    """What a question asks, or None if `write` never writes it (case and outer blanks do not matter)."""
    return _grammar().get(text.strip().lower())


@cache
def _grammar() -> dict[str, Asked]:
    return {write(asked).lower(): asked for asked in every_question()}


def every_question() -> Iterator[Asked]:
    """All that can be asked, each once; two stands for every plural that names no number."""
    for name, number in product(SHAPES, (1, 2)):
        yield Asked("entity", name, number)
        yield from (Asked("color", name, number, color) for color in COLORS)
    for name, number in product(SHAPES, range(1, MOST + 1)):
        yield Asked("count", name, number)
    for (name, other), relation in product(permutations(SHAPES, 2), RELATIONS):
        yield Asked("relation", name, relation=relation, other=other)


CATEGORIES: dict[Kind, tuple[str, str]] = {
    "entity": ("entity", "whole"),
    "count": ("other", "count"),
    "color": ("attribute", "color"),
    "relation": ("relation", "spatial"),
}


def make_graph(task: str, checks: Checks) -> tuple[Question, ...]:
    """The question graph of a prompt's checks, numbered from 1, parents first.

    Colour, count and relation hang on the entities they speak of; where there is a count, the colour
    hangs on that; in a composition, the relation hangs on both colours.
    """
    # As the prompt names them: a relation's target comes first in GenEval's metadata, last in words.
    items = checks["include"][::-1] if TASKS[task] == "position" else checks["include"]
    nodes = _layer("entity", items, 1, [()] * len(items))
    under = _ids(nodes)
    if task in ("count", "composition"):
        nodes += _layer("count", items, len(nodes) + 1, under)
        under = _ids(nodes[-len(items) :])
    if "color" in items[0]:
        nodes += _layer("color", items, len(nodes) + 1, under)
        under = _ids(nodes[-len(items) :])
    if "position" in items[0]:
        asked = Asked("relation", items[0]["class"], 1, "", items[0]["position"][0], items[1]["class"])
        nodes.append(_node(len(nodes) + 1, asked, (*under[0], *under[1])))
    return tuple(nodes)


def _layer(
    kind: Kind, items: Sequence[Checks], first: int, parents: Sequence[tuple[int, ...]]
) -> list[Question]:
    """One question of a kind about each item, numbered from `first`."""
    asked = [
        Asked(kind, item["class"], item["count"], item.get("color", "") if kind == "color" else "")
        for item in items
    ]
    return [_node(first + i, one, under) for i, (one, under) in enumerate(zip(asked, parents, strict=True))]


def _node(identity: int, asked: Asked, parents: tuple[int, ...]) -> Question:
    category, detail = CATEGORIES[asked.kind]
    about = {
        "entity": asked.name,
        "count": f"{asked.name}, =={asked.number}",
        "color": f"{asked.name}, {asked.color}",
        "relation": f"{asked.name}, {asked.other}, {asked.relation}",
    }[asked.kind]
    return Question(identity, write(asked), parents, category, detail, f"{category} - {detail} ({about})")


def _ids(nodes: Sequence[Question]) -> list[tuple[int, ...]]:
    return [(node.id,) for node in nodes]


def make_suite(seed: int = 43, per_task: int = 18) -> list[Json]:
    """A freshly sampled suite of distinct prompts, each with its question graph as `checks`.

    Every other composition lists its questions from the last to the first, so that children stand
    before their parents: there, the official row by row zeroing stops short of grandchildren.

    Raises:
        BadInput: a task has fewer distinct prompts than `per_task` asks for.
    """
    rng = random.Random(seed)
    return [row for task in TASKS for row in _task_rows(task, per_task, rng)]


def _task_rows(task: str, number: int, rng: random.Random) -> Iterator[Json]:
    for i, checks in enumerate(_distinct(task, number, rng)):
        graph = make_graph(task, checks)
        ordered = graph[::-1] if task == "composition" and i % 2 else graph
        yield {
            "id": f"{task}-{i:03d}",
            "text": checks["prompt"],
            "tag": task,
            "split": "unseen" if needs_held_out(checks) else "seen",
            "checks": write_questions(ordered),
        }


def _distinct(task: str, number: int, rng: random.Random) -> list[Checks]:
    found: dict[str, Checks] = {}
    stale = 0
    while len(found) < number:
        checks = sample_checks(TASKS[task], rng)
        checks = name_colors(checks, rng) if task in COLORED else checks
        stale = stale + 1 if checks["prompt"] in found else 0
        found.setdefault(checks["prompt"], checks)
        if stale == PATIENCE:
            raise BadInput(f"only {len(found)} distinct prompts of {task}: ask for fewer with --per-task")
    return list(found.values())
