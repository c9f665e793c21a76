"""The report's score table: figures in writing, bars on one axis, two foldings side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from sar_eval.report.evidence import finite
from sar_eval.report.foldings import Line, has_reference, lines, quirks
from sar_eval.types import Metric

NONE = "\N{EN DASH}"
HINTS = {
    "correct_images": "share of all images",
    "correct_prompts": "at least one image correct",
    "soft": "mean probability of yes, nothing zeroed",
}


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One line of the score table; `bar`, `low` and `high` are percent of the axis.

    `reference` and `reference_interval` are those of the official script's folding ("" where the fold
    has one folding only).
    """

    label: str
    hint: str
    value: str
    interval: str
    n: int
    bar: float | None
    low: float | None
    high: float | None
    filter: str
    reference: str = ""
    reference_interval: str = ""


def score_groups(metrics: Sequence[Metric]) -> tuple[float, list[tuple[str, list[ScoreRow]]]]:
    """The end of the common axis, and the table's rows under their headings.

    `overall` and other figures without a slash come first; `task/counting` goes under `task`.
    """
    metrics = [_finite(metric) for metric in metrics]
    told = lines(metrics)
    both = [metric for line in told for metric in (line.ours, line.reference) if metric]
    top = max((v for m in both for v in (m.value, m.high) if v is not None), default=1.0)
    axis = float(max((m.scale for m in both), default=1))
    if top > axis:
        axis = max(100.0, 10.0 ** math.ceil(math.log10(top)))
    groups: dict[str, list[ScoreRow]] = {"": []}
    for line in told:
        groups.setdefault(line.group, []).append(_score_row(line, axis, has_reference(metrics)))
    return axis, [(title, rows) for title, rows in groups.items() if rows]


def quirk_rows(metrics: Sequence[Metric]) -> list[tuple[str, str, str, int]]:
    """Of each quirk of the official script: its name, effect, interval, and prompts concerned."""
    told = quirks(_finite(metric) for metric in metrics)
    return [(name, _value(metric, "+"), _interval(metric, "+"), metric.n) for name, metric in told]


def _finite(metric: Metric) -> Metric:
    value, low, high = (finite(limit) for limit in (metric.value, metric.low, metric.high))
    return replace(metric, value=value, low=low, high=high)


def _score_row(line: Line, axis: float, beside: bool) -> ScoreRow:
    ours = line.ours or Metric(line.name, None, None, None, 0)
    name = line.name.rpartition("/")[2]
    return ScoreRow(
        label=line.label if line.group else line.label.capitalize(),
        hint=HINTS.get(line.name, ""),
        value=_value(ours),
        interval=_interval(ours),
        n=ours.n,
        bar=_percent(ours.value, axis),
        low=_percent(ours.low, axis),
        high=_percent(ours.high, axis),
        filter=f"{line.group}={quote(name, safe='')}" if line.group in ("task", "split") and name else "",
        reference=_value(line.reference) if beside else "",
        reference_interval=_interval(line.reference) if beside else "",
    )


def _value(metric: Metric | None, sign: str = "-") -> str:
    return NONE if metric is None or metric.value is None else metric.written(metric.value, sign)


def _interval(metric: Metric | None, sign: str = "-") -> str:
    if metric is None or metric.low is None or metric.high is None:
        return ""
    return f"[{metric.low:{sign}.2f}, {metric.high:{sign}.2f}]"


def _percent(value: float | None, axis: float) -> float | None:
    return None if value is None else round(min(max(100 * value / axis, 0.0), 100.0), 3)
