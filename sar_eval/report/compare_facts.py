"""What was compared: the runs' settings side by side, which of them differ, and published scores beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sar_eval.comparisons import Comparison, RunFacts, Side
from sar_eval.types import Json, Metric

NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class FactLine:
    """One setting: its value in each run, as text ("" for none), and whether they differ."""

    name: str
    values: tuple[str, ...]
    differs: bool


def fact_groups(sides: Sequence[Side]) -> list[tuple[str, list[FactLine]]]:
    """Titled settings of all runs; those that a run does not have are empty."""
    by_side = [_settings(side) for side in sides]
    groups = []
    for title in by_side[0]:
        names = dict.fromkeys(name for settings in by_side for name in settings[title])
        groups.append((title, [_line(name, [s[title].get(name) for s in by_side]) for name in names]))
    return groups


def _line(name: str, values: Sequence[Json]) -> FactLine:
    texts = tuple(_as_text(value) for value in values)
    return FactLine(name.replace("_", " "), texts, len(set(texts)) > 1)


def _settings(side: Side) -> dict[str, dict[str, Json]]:
    facts = side.facts
    return {
        "Checkpoint": {"checkpoint": facts.checkpoint, "digest": facts.checkpoint_digest},
        "Protocol": _protocol(facts),
        "Drawing": {
            "images_per_prompt": facts.images_per_prompt,
            "seed": NOT_KNOWN if facts.is_imported else facts.seed,
            "engine": "imported images"
            if facts.is_imported
            else f"{facts.engine} {facts.engine_version}".strip(),
            "dtype": facts.dtype,
        },
        "Scoring": {
            "judge": f"{facts.judge} {facts.judge_version}".strip(),
            "judge_digest": facts.judge_digest,
            **facts.judge_options,
            "rules": f"{facts.fold} {facts.fold_version}",
            "suite": f"{facts.prompts:,} prompts, {facts.suite_digest}",
        },
        "Run": {
            "path": side.path,
            "images": f"{facts.expected:,}",
            "without_a_score": f"{facts.failed:,}",
            "spec_digest": facts.spec_digest,
        },
    }


def _protocol(facts: RunFacts) -> dict[str, Json]:
    protocol = facts.protocol.to_json()
    if facts.is_imported:
        return {name: protocol[name] if name == "name" else NOT_KNOWN for name in protocol}
    return protocol


def _as_text(value: Json) -> str:
    """A setting as text, in quotes if it has leading or trailing whitespace."""
    if value is None:
        return ""
    is_plain = isinstance(value, str) and value == value.strip()
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A run or a published model: its headline figure and those of the tasks, as text."""

    name: str
    overall: str
    tasks: tuple[str, ...]
    conditions: str
    is_published: bool


def published_lines(found: Comparison) -> tuple[list[str], list[ScoreLine]]:
    """The tasks, and the runs' figures and the published ones, best first; none if none are to be shown."""
    if not found.published:
        return [], []
    headline = found.pairs[0].overall.measure
    tasks = list(dict.fromkeys(task for score in found.published for task in score.tasks))
    lines = [
        (
            side.figures[headline],
            ScoreLine(
                side.name,
                _written(side.figures[headline], found.scale),
                tuple(_written(side.figures.get(f"task/{task}"), found.scale) for task in tasks),
                "measured here",
                is_published=False,
            ),
        )
        for side in found.sides
    ]
    lines += [
        (
            score.overall,
            ScoreLine(
                score.name,
                f"{score.overall:g}",
                tuple(f"{score.tasks[task]:g}" if task in score.tasks else "" for task in tasks),
                f"{score.conditions}; {score.source}",
                is_published=True,
            ),
        )
        for score in found.published
    ]
    return tasks, [line for _, line in sorted(lines, key=lambda line: -line[0])]


def _written(value: float | None, scale: int) -> str:
    return "" if value is None else Metric("", None, None, None, 0, scale).written(value)
