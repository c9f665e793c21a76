"""The report's score table: formatted metrics, bars on one axis, reference metrics beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from sar_eval.report.metric_pairs import MetricPair, has_reference, pair_metrics, quirk_effects
from sar_eval.types import Metric

NONE = "\N{EN DASH}"
HINTS = {
    "correct_images": "share of all images",
    "correct_prompts": "at least one image correct",
    "soft": "mean probability of yes, nothing zeroed",
    "listed_mass": "probability of all the answers that a question lists",
}


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One row of the score table; `bar`, `low` and `high` are percentages of the axis, None off it.

    `reference` and `reference_interval` are the official script's ("" if the fold does not compute them).
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
    """The end of the common axis, and the table's rows by heading.

    `overall` and other metrics without a slash come first, with an empty heading; `task/counting` has the
    heading `task`.
    """
    metrics = [_finite(metric) for metric in metrics]
    pairs = pair_metrics(metrics)
    both = [metric for pair in pairs for metric in (pair.ours, pair.reference) if metric]
    on_axis = [metric for metric in both if metric.is_share]
    largest = max((v for m in on_axis for v in (m.value, m.high) if v is not None), default=1.0)
    axis = float(max((m.scale for m in on_axis), default=1))
    if largest > axis:
        axis = max(100.0, 10.0 ** math.ceil(math.log10(largest)))
    groups: dict[str, list[ScoreRow]] = {"": []}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(_score_row(pair, axis, has_reference(metrics)))
    return axis, [(title, rows) for title, rows in groups.items() if rows]


def quirk_rows(metrics: Sequence[Metric]) -> list[tuple[str, str, str, int]]:
    """Name, effect, interval and number of affected prompts of each quirk of the official script."""
    effects = quirk_effects(_finite(metric) for metric in metrics)
    return [(name, _value(effect, "+"), _interval(effect, "+"), effect.n) for name, effect in effects]


def _finite(metric: Metric) -> Metric:
    value, low, high = (_finite_or_none(limit) for limit in (metric.value, metric.low, metric.high))
    return replace(metric, value=value, low=low, high=high)


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _score_row(pair: MetricPair, axis: float, with_reference: bool) -> ScoreRow:
    ours = pair.ours or Metric(pair.name, None, None, None, 0)
    name = pair.name.rpartition("/")[2]
    drawn = ours if ours.is_share else replace(ours, value=None, low=None, high=None)
    return ScoreRow(
        label=pair.label if pair.group else pair.label.capitalize(),
        hint=HINTS.get(pair.name, ""),
        value=_value(ours),
        interval=_interval(ours),
        n=ours.n,
        bar=_percent(drawn.value, axis),
        low=_percent(drawn.low, axis),
        high=_percent(drawn.high, axis),
        filter=f"{pair.group}={quote(name, safe='')}" if pair.group in ("task", "split") and name else "",
        reference=_value(pair.reference) if with_reference else "",
        reference_interval=_interval(pair.reference) if with_reference else "",
    )


def _value(metric: Metric | None, sign: str = "-") -> str:
    return NONE if metric is None or metric.value is None else metric.written(metric.value, sign)


def _interval(metric: Metric | None, sign: str = "-") -> str:
    if metric is None or metric.low is None or metric.high is None:
        return ""
    return f"[{metric.low:{sign}.2f}, {metric.high:{sign}.2f}]"


def _percent(value: float | None, axis: float) -> float | None:
    return None if value is None else round(min(max(100 * value / axis, 0.0), 100.0), 3)
