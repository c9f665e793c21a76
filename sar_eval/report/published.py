"""Scores that others published, for a look beside one's own. Protocols differ: they are told too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """One figure with where it was read.

    Attributes:
        model: its name there.
        benchmark: "geneval" (0 to 1) or "dpg" (0 to 100).
        overall: the headline figure.
        tasks: task to figure, where they are given.
        source: the paper or repository.
        protocol: rewriter (whether a language model rewrote the prompts), resolution, guidance,
            images_per_prompt; None where the source does not say.
        note: what else one should know.
    """

    model: str
    benchmark: str
    overall: float
    tasks: Mapping[str, float]
    source: str
    protocol: Mapping[str, Json]
    note: str = ""

    @property
    def conditions(self) -> str:
        """The protocol in words; "not told" where nothing is."""
        rewriter = {True: "rewritten prompts", False: "prompts as they are", None: ""}
        forms = {
            "resolution": "{} pixels",
            "guidance": "guidance {}",
            "images_per_prompt": "{} images a prompt",
        }
        told = [rewriter[self.protocol.get("rewriter")]]
        for name, form in forms.items():
            value = self.protocol.get(name)
            told.append("" if value is None else form.format(value))
        return ", ".join(filter(None, told)) or "not told"


def published(benchmark: str) -> list[PublishedScore]:
    """The figures of a benchmark, best first; none for benchmarks that nobody publishes."""
    rows = json.loads(_path().read_text())
    found = [PublishedScore(**row) for row in rows if row["benchmark"] == benchmark]
    return sorted(found, key=lambda score: -score.overall)


def beside(
    benchmark: str, model: str, overall: float, conditions: str
) -> list[tuple[PublishedScore, bool]]:
    """The published figures with one's own in its place, marked True; empty where there are none."""
    own = PublishedScore(model, benchmark, overall, {}, "this run", {}, conditions)
    rows = published(benchmark)
    ranked = sorted([*rows, own] if rows else [], key=lambda score: -score.overall)
    return [(score, score is own) for score in ranked]


def _path() -> Path:
    """Inside an installed package, or in the source checkout."""
    inside = Path(__file__).parent / "published.json"
    return inside if inside.is_file() else Path(__file__).parents[2] / "reports" / "published.json"
