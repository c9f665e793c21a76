"""Pair a fold's own metrics with those of the official script, by name.

A fold that also computes the official script's metrics names them `reference/<name of ours>`, and the
effects of repairing one of the script's quirks `quirk/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sar_eval.types import Metric

REFERENCE, QUIRK = "reference/", "quirk/"
QUIRKS_TITLE = "What each quirk of the official script changes"
QUIRKS_NOTE = (
    "Points that the reference score would gain if the script did not do this and everything else stayed "
    "the same; effects need not add up. n counts the affected prompts."
)


@dataclass(frozen=True, slots=True)
class MetricPair:
    """Our metric and the reference's of the same name; one of the two may be missing."""

    name: str
    ours: Metric | None
    reference: Metric | None

    @property
    def group(self) -> str:
        """The part of the name before its last slash ("" for headline figures)."""
        return self.name.rpartition("/")[0]

    @property
    def label(self) -> str:
        """The part after it, in words."""
        return self.name.rpartition("/")[2].replace("_", " ") or "untagged"


def pair_metrics(metrics: Iterable[Metric]) -> list[MetricPair]:
    """Pairs of all metrics but the quirks: in the order of ours, groups kept together."""
    ours: dict[str, Metric] = {}
    reference: dict[str, Metric] = {}
    for metric in metrics:
        if metric.name.startswith(REFERENCE):
            reference[metric.name.removeprefix(REFERENCE)] = metric
        elif not metric.name.startswith(QUIRK):
            ours[metric.name] = metric
    pairs = [MetricPair(name, ours.get(name), reference.get(name)) for name in ours | reference]
    groups = list(dict.fromkeys(pair.group for pair in pairs))
    return sorted(pairs, key=lambda pair: groups.index(pair.group))


def nest_details(pairs: Sequence[MetricPair]) -> list[tuple[str, MetricPair]]:
    """Rows (label, pair) of a table in which each `detail/A - B` is indented under `category/A`."""
    categories = {pair.label for pair in pairs if pair.group == "category"}
    details: dict[str, list[tuple[str, MetricPair]]] = {}
    others = []
    for pair in pairs:
        category, _, detail = pair.label.partition(" - ")
        if pair.group == "detail" and category in categories:
            details.setdefault(category, []).append((f"  {detail or category}", pair))
        else:
            others.append(pair)
    rows = []
    for pair in others:
        rows.append((pair.label, pair))
        rows += details.get(pair.label, []) if pair.group == "category" else []
    return rows


def has_reference(metrics: Iterable[Metric]) -> bool:
    """Whether the fold computed the official script's metrics too."""
    return any(metric.name.startswith(REFERENCE) for metric in metrics)


def quirk_effects(metrics: Iterable[Metric]) -> list[tuple[str, Metric]]:
    """Each quirk's name in words, with its effect."""
    return [
        (metric.name.removeprefix(QUIRK).replace("_", " "), metric)
        for metric in metrics
        if metric.name.startswith(QUIRK)
    ]
