"""The suite `dpg-shapes`: prompts with question graphs in a small closed grammar.

The suite has the schema of DPG-Bench: each prompt has yes-or-no questions about entities, colours,
counts and relations, and the dependencies between them. `parse_question` inverts `write_question`, so
an answerer can recognise every question of the suite.
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
    needs_held_out,
    plural,
    with_article,
)
from sar_eval.types import Json

# The suite's tasks, each with the task of the suite `shapes` that its prompts are sampled from.
TASKS = {
    "color": "colors",
    "count": "counting",
    "two_colors": "color_attr",
    "relation": "position",
    "composition": "position",
}
COLORED_TASKS = ("count", "composition")  # their prompts name a colour for every object
MAX_REPEATS = 20_000  # consecutive samples without a new prompt after which a task counts as exhausted
MAX_COUNT = len(NUMBERS) - 1

Kind = Literal["entity", "count", "color", "relation"]


@dataclass(frozen=True, slots=True)
class ShapeQuestion:
    """The meaning of a question about shapes.

    Attributes:
        kind: asks whether there is a `name` ("entity"), exactly `number` of them ("count"), whether all
            of them have `color` ("color"), or are in `relation` to every `other` ("relation").
        name: of the shape.
        number: 1 for the singular, more for the plural; the exact number if `kind` is "count".
        color: of the palette.
        relation: `left of`, `right of`, `above` or `below`.
        other: target shape of the relation.
    """

    kind: Kind
    name: str
    number: int = 1
    color: str = ""
    relation: str = ""
    other: str = ""


def write_question(question: ShapeQuestion) -> str:
    """The question's text: `Is the circle red?`, `Are there exactly two stars?`."""
    singular = question.number == 1
    verb = "Is" if singular else "Are"
    noun = question.name if singular else plural(question.name)
    if question.kind == "entity":
        return f"{verb} there {with_article(noun) if singular else noun}?"
    if question.kind == "count":
        return f"{verb} there exactly {NUMBERS[question.number]} {noun}?"
    if question.kind == "color":
        return f"{verb} the {noun} {question.color}?"
    return f"{verb} the {noun} {question.relation} the {question.other}?"


def parse_question(text: str) -> ShapeQuestion | None:
    """The question with this text, or None if there is none; case and outer whitespace are ignored."""
    return _grammar().get(text.strip().lower())


@cache
def _grammar() -> dict[str, ShapeQuestion]:
    return {write_question(question).lower(): question for question in all_questions()}


def all_questions() -> Iterator[ShapeQuestion]:
    """Every question of the grammar once; number 2 is the plural, whatever the count."""
    for name, number in product(SHAPES, (1, 2)):
        yield ShapeQuestion("entity", name, number)
        yield from (ShapeQuestion("color", name, number, color) for color in COLORS)
    for name, number in product(SHAPES, range(1, MAX_COUNT + 1)):
        yield ShapeQuestion("count", name, number)
    for (name, other), relation in product(permutations(SHAPES, 2), RELATIONS):
        yield ShapeQuestion("relation", name, relation=relation, other=other)


CATEGORIES: dict[Kind, tuple[str, str]] = {
    "entity": ("entity", "whole"),
    "count": ("other", "count"),
    "color": ("attribute", "color"),
    "relation": ("relation", "spatial"),
}


def make_graph(task: str, checks: Checks) -> tuple[Question, ...]:
    """The question graph of a prompt's checks, numbered from 1, parents first.

    Colour, count and relation depend on their entities; a colour depends on the count if there is one;
    in a composition, the relation depends on both colours.
    """
    # In prompt order: a relation's target comes first in GenEval's metadata but last in the prompt.
    items = checks["include"][::-1] if TASKS[task] == "position" else checks["include"]
    nodes = _layer("entity", items, 1, [()] * len(items))
    parents = _ids(nodes)
    if task in ("count", "composition"):
        nodes += _layer("count", items, len(nodes) + 1, parents)
        parents = _ids(nodes[-len(items) :])
    if "color" in items[0]:
        nodes += _layer("color", items, len(nodes) + 1, parents)
        parents = _ids(nodes[-len(items) :])
    if "position" in items[0]:
        name, relation, target = items[0]["class"], items[0]["position"][0], items[1]["class"]
        question = ShapeQuestion("relation", name, relation=relation, other=target)
        nodes.append(_node(len(nodes) + 1, question, (*parents[0], *parents[1])))
    return tuple(nodes)


def _layer(
    kind: Kind, items: Sequence[Checks], first_id: int, parents: Sequence[tuple[int, ...]]
) -> list[Question]:
    """One question of a kind about each item, numbered from `first_id`."""
    nodes: list[Question] = []
    for item, parent_ids in zip(items, parents, strict=True):
        color = item.get("color", "") if kind == "color" else ""
        question = ShapeQuestion(kind, item["class"], item["count"], color)
        nodes.append(_node(first_id + len(nodes), question, parent_ids))
    return nodes


def _node(node_id: int, question: ShapeQuestion, parents: tuple[int, ...]) -> Question:
    category, detail = CATEGORIES[question.kind]
    arguments = {
        "entity": question.name,
        "count": f"{question.name}, =={question.number}",
        "color": f"{question.name}, {question.color}",
        "relation": f"{question.name}, {question.other}, {question.relation}",
    }[question.kind]
    statement = f"{category} - {detail} ({arguments})"
    return Question(node_id, write_question(question), parents, category, detail, statement)


def _ids(nodes: Sequence[Question]) -> list[tuple[int, ...]]:
    return [(node.id,) for node in nodes]


def make_suite(seed: int = 43, per_task: int = 18) -> list[Json]:
    """Sample a suite of distinct prompts, each with its question graph as `checks`.

    Every other composition lists its questions in reverse, children before parents: there, the official
    row-by-row zeroing does not reach grandchildren.

    Raises:
        BadInput: a task has fewer than `per_task` distinct prompts.
    """
    rng = random.Random(seed)
    return [row for task in TASKS for row in _task_rows(task, per_task, rng)]


def _task_rows(task: str, number: int, rng: random.Random) -> Iterator[Json]:
    for i, checks in enumerate(_distinct_checks(task, number, rng)):
        graph = make_graph(task, checks)
        ordered = graph[::-1] if task == "composition" and i % 2 else graph
        yield {
            "id": f"{task}-{i:03d}",
            "text": checks["prompt"],
            "tag": task,
            "split": "unseen" if needs_held_out(checks) else "seen",
            "checks": write_questions(ordered),
        }


def _distinct_checks(task: str, number: int, rng: random.Random) -> list[Checks]:
    by_prompt: dict[str, Checks] = {}
    repeats = 0
    while len(by_prompt) < number:
        checks = sample_checks(TASKS[task], rng)
        checks = name_colors(checks, rng) if task in COLORED_TASKS else checks
        repeats = repeats + 1 if checks["prompt"] in by_prompt else 0
        by_prompt.setdefault(checks["prompt"], checks)
        if repeats == MAX_REPEATS:
            raise BadInput(
                f"only {len(by_prompt)} distinct prompts of {task}: ask for fewer with --per-task"
            )
    return list(by_prompt.values())
