"""The report's section on scorers: each one's figure and histogram, what goes with what, the extremes."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from sar_eval.measures import Measure
from sar_eval.report.data import FAIL, PASS, RunRows
from sar_eval.stats.correlation import Correlation, auc, spearman
from sar_eval.stats.intervals import metric_of
from sar_eval.types import Json, Metric

GROUP = "scorer/"  # of the measures that scorers give
SHOWN = 40  # scorers that the page shows; each pair of them is correlated. The table of figures has all
BINS = 32  # of a histogram
EXTREMES = 6  # best, and worst, pictures of each scorer
NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScorerColumn:
    """A scorer's number of every row of the run.

    Attributes:
        name: of the scorer.
        measure: its figure.
        values: by row [N]; NaN where there is none.
        best, worst: rows of the most extreme numbers, most extreme first; equal ones in suite order.
    """

    name: str
    measure: Measure
    values: Floats
    best: list[int]
    worst: list[int]

    def to_json(self) -> dict[str, Json]:
        """As `report_scorers.js` takes it: numbers as float32."""
        values = base64.b64encode(self.values.astype("<f4").tobytes()).decode()
        return {"name": self.name, "values": values, "best": self.best, "worst": self.worst}


def scorer_columns(measures: Sequence[Measure], rows: RunRows) -> list[ScorerColumn]:
    """A column for each of the first `SHOWN` measures `scorer/NAME` that has numbers of the run's draws."""
    ours = [measure for measure in measures if measure.name.startswith(GROUP)]
    found = [_column(measure, rows) for measure in ours[:SHOWN]]
    return [column for column in found if len(column.best)]


def _column(measure: Measure, rows: RunRows) -> ScorerColumn:
    values = np.full(len(rows), np.nan)
    for stratum in measure.strata:
        prompts = np.repeat(np.arange(len(stratum.prompts)), stratum.rows_of).tolist()
        keys = (
            f"{stratum.prompts[p]}/{index}"
            for p, index in zip(prompts, stratum.indices.tolist(), strict=True)
        )
        numbers = rows.numbers(keys)
        scores = (stratum.sums / stratum.weights).tolist()
        for number, score in zip(numbers, scores, strict=True):
            if number is not None:
                values[number] = score
    known = np.flatnonzero(~np.isnan(values))
    rising = known[np.lexsort((known, values[known]))]
    falling = known[np.lexsort((known, -values[known]))]
    name = measure.name.removeprefix(GROUP)
    return ScorerColumn(name, measure, values, falling[:EXTREMES].tolist(), rising[:EXTREMES].tolist())


@dataclass(frozen=True, slots=True)
class Bin:
    """A bar of a histogram, in percent: its left edge, and the heights of its parts, from below.

    `title` says in words what it is of.
    """

    left: float
    passed: float
    failed: float
    other: float
    title: str


@dataclass(frozen=True, slots=True)
class ScorerPanel:
    """One scorer as the page shows it.

    Attributes:
        name, value, interval: its figure as text.
        n, without: pictures with and without a number.
        bins, width: the histogram, and the width of a bar in percent of the axis.
        low, high: text of the ends of its axis.
        mean: where the figure is, in percent; None if it is not on the axis.
        gallery: fragment that sorts the gallery by this scorer.
    """

    name: str
    value: str
    interval: str
    n: int
    without: int
    bins: list[Bin]
    width: float
    low: str
    high: str
    mean: float | None
    gallery: str


def scorer_panels(columns: Sequence[ScorerColumn], rows: RunRows) -> list[ScorerPanel]:
    """The panels of all scorers, in their order."""
    return [_panel(column, rows) for column in columns]


def _panel(column: ScorerColumn, rows: RunRows) -> ScorerPanel:
    known = ~np.isnan(column.values)
    values, states = column.values[known], rows.states[known]
    least, largest = float(values.min()), float(values.max())
    figure = metric_of(column.measure)
    span = largest - least
    bins, width = _histogram(values, states)
    place = None if figure.value is None or span <= 0 else 100 * (figure.value - least) / span
    return ScorerPanel(
        name=column.name,
        value=NONE if figure.value is None else written(figure.value),
        interval=_interval(figure),
        n=int(known.sum()),
        without=int((~known & rows.stored).sum()),
        bins=bins,
        width=width,
        low=written(least),
        high=written(largest),
        mean=None if place is None else round(min(max(place, 0.0), 100.0), 2),
        gallery=urlencode({"scorer": column.name, "sort": "high"}),
    )


def _histogram(values: Floats, states: NDArray[np.uint8]) -> tuple[list[Bin], float]:
    """Bars over the range of the values by verdict, and their width in percent; one for equal values."""
    number = BINS if np.ptp(values) > 0 else 1
    edges = np.linspace(values.min(), values.max(), number + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, number - 1)
    kinds = np.where(states == PASS, 0, np.where(states == FAIL, 1, 2))
    counts = np.bincount(place * 3 + kinds, minlength=3 * number).reshape(number, 3)
    heights = np.round(100 * counts / counts.sum(axis=1).max(), 2)
    bins = []
    for b in np.flatnonzero(counts.any(axis=1)).tolist():
        passed, failed, other = heights[b].tolist()
        title = _bin_title(counts[b].tolist(), edges[b : b + 2])
        bins.append(Bin(round(100 * b / number, 3), passed, failed, other, title))
    return bins, 100 / number


def _bin_title(counts: list[int], edges: Floats) -> str:
    parts = [f"{n:,} {name}" for n, name in zip(counts, ("passed", "failed"), strict=False) if n]
    detail = f" ({', '.join(parts)})" if parts else ""
    pictures = "picture" if sum(counts) == 1 else "pictures"
    return f"{written(edges[0])} to {written(edges[1])}: {sum(counts):,} {pictures}{detail}"


@dataclass(frozen=True, slots=True)
class CorrelationCell:
    """A correlation as text, and how strong it is: -1 to 1, for the cell's shade."""

    value: str = NONE
    interval: str = ""
    strength: float = 0.0
    title: str = ""


@dataclass(frozen=True, slots=True)
class CorrelationTable:
    """What goes with what.

    Attributes:
        verdict: heading of the column of verdicts; "" without one.
        names: headings of the columns of scorers: all but the last, as every pair is there once.
        rows: each scorer's name, its cell of the verdict, and its cells of the scorers before it.
    """

    verdict: str
    names: list[str]
    rows: list[tuple[str, CorrelationCell, list[CorrelationCell]]]


def correlations(columns: Sequence[ScorerColumn], rows: RunRows, judge: str) -> CorrelationTable | None:
    """Each scorer with the verdict and with the others; None if there is nothing to hold it against.

    With verdicts of pass or fail it is the AUC, with scores Spearman's rho. Verdicts of the judge `score`
    are made of the scorers' own numbers, so these are not held against them.
    """
    prompts = np.arange(len(rows), dtype=np.int64) // rows.k
    is_binary = bool(np.isin(rows.states, (PASS, FAIL)).any())
    has_verdict = judge != "score" and (is_binary or bool(np.isfinite(rows.scores).any()))
    if not has_verdict and len(columns) < 2:
        return None
    verdicts = np.where(rows.states == PASS, 1.0, np.where(rows.states == FAIL, 0.0, np.nan))
    if not is_binary:
        verdicts = rows.scores.astype(float)
    with_verdict = auc if is_binary else spearman
    table = []
    for number, column in enumerate(columns):
        own = with_verdict(column.values, verdicts, prompts) if has_verdict else None
        others = [spearman(column.values, other.values, prompts) for other in columns[:number]]
        cell = CorrelationCell() if own is None else _cell(own, is_area=is_binary)
        table.append((column.name, cell, [_cell(found) for found in others]))
    heading = ("Verdict (AUC)" if is_binary else "Verdict's score") if has_verdict else ""
    return CorrelationTable(heading, [column.name for column in columns[:-1]], table)


def _cell(found: Correlation, *, is_area: bool = False) -> CorrelationCell:
    if found.value is None:
        return CorrelationCell(title="One of the two is the same for all pictures")
    interval = (
        NONE if found.low is None or found.high is None else f"{_two(found.low)} to {_two(found.high)}"
    )
    return CorrelationCell(
        _two(found.value),
        interval,
        2 * found.value - 1 if is_area else found.value,
        f"{found.pictures:,} pictures of {found.prompts:,} prompts",
    )


def _two(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def written(value: float) -> str:
    """A scorer's number in four digits: 0.2831, 21.34, 103.5."""
    if abs(value) >= 1e5:
        return f"{value:,.0f}".replace("-", MINUS)
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(digits, 9)}f}".replace("-", MINUS)


def _interval(figure: Metric) -> str:
    """With as many decimals as the figure has."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    decimals = len(written(figure.value).partition(".")[2])
    low, high = (f"{limit:,.{decimals}f}".replace("-", MINUS) for limit in (figure.low, figure.high))
    return f"[{low}, {high}]"
