"""Published scores, to compare with a run's own. Protocols differ, so they are shown too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """One model's published score and its source.

    Attributes:
        model: its name in the source.
        benchmark: "geneval" (0 to 1) or "dpg" (0 to 100).
        overall: the headline score.
        tasks: scores by task, if published.
        source: the paper or repository.
        protocol: rewriter (whether a language model rewrote the prompts), resolution, guidance,
            images_per_prompt; None if the source does not state it.
        note: further remarks.
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
        """The protocol in words; "not stated" if nothing is known."""
        rewriter = {True: "rewritten prompts", False: "original prompts", None: ""}
        formats = {
            "resolution": "{} pixels",
            "guidance": "guidance {}",
            "images_per_prompt": "{} images per prompt",
        }
        parts = [rewriter[self.protocol.get("rewriter")]]
        for name, template in formats.items():
            value = self.protocol.get(name)
            parts.append("" if value is None else template.format(value))
        return ", ".join(filter(None, parts)) or "not stated"


def read_published(benchmark: str) -> list[PublishedScore]:
    """The published scores of a benchmark, best first; empty if there are none."""
    rows = json.loads(_path().read_text())
    scores = [PublishedScore(**row) for row in rows if row["benchmark"] == benchmark]
    return sorted(scores, key=lambda score: -score.overall)


def rank_among_published(
    benchmark: str, model: str, overall: float, conditions: str
) -> list[tuple[PublishedScore, bool]]:
    """The published scores and one's own (marked True), best first; empty if none are published."""
    own = PublishedScore(model, benchmark, overall, {}, "this run", {}, conditions)
    scores = read_published(benchmark)
    ranked = sorted([*scores, own] if scores else [], key=lambda score: -score.overall)
    return [(score, score is own) for score in ranked]


def _path() -> Path:
    """In an installed package, or else in the source checkout."""
    packaged = Path(__file__).parent / "published.json"
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "reports" / "published.json"
