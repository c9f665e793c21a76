"""The geometry of a training page's plots, in the SVG's units: lines over steps, intervals, stacked areas.

All plots of a page are of one size and have the same steps across. Thousands of steps are thinned: each of
at most `BINS` stretches is drawn by its mean, in a pale band of what lies in it, so that no spike is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sar_eval.report.history_plot import nice
from sar_eval.storage.training_journal import HoldoutRow

WIDTH, HEIGHT = 400, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 24  # margins around the axes
BINS = 120
SMOOTHED_FROM = 24  # stretches: a line of fewer is drawn as it is
SMOOTH = 3.0  # times up and down its whole range: a line that goes less needs no running mean
COLOURS = 6
INTERVALS = 40  # results with whiskers that fit side by side
OUTLIER = 8.0  # times the distance of the 98th percentile from the median: beyond it a value is cut off

Points = tuple[NDArray[np.float64], NDArray[np.float64]]  # steps [n] and values [n], finite
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One line.

    Attributes:
        name: in the legend; "" if the plot has one line alone.
        colour: number of its class.
        line: of the running mean, or of the values themselves if they are few; for `polyline`.
        raw: of the values, drawn pale; "" without a running mean.
        band: from the lowest to the highest value of each stretch, for `polygon`; "" if none is thinned.
        last: the value at the end, written.
    """

    name: str
    colour: int
    line: str
    raw: str = ""
    band: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whisker:
    """A result with its interval; `title` is what hovering shows."""

    x: float
    y: float
    low: float
    high: float
    colour: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A stretch of steps as a target for the pointer; `title` is what hovering shows."""

    x: float
    width: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Everything that is drawn of one figure, or of one family of figures."""

    title: str
    about: str
    label: str
    traces: tuple[Trace, ...] = ()
    areas: tuple[Trace, ...] = ()
    whiskers: tuple[Whisker, ...] = ()
    strips: tuple[Strip, ...] = ()
    x_ticks: tuple[tuple[float, str], ...] = ()
    y_ticks: tuple[tuple[float, str], ...] = ()
    skips: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Across:
    """The steps of a run on the horizontal axis."""

    first: int
    last: int
    skipped: tuple[int, ...] = ()

    def x(self, step: float) -> float:
        """In the SVG's units; a single step lies in the middle."""
        share = (step - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(LEFT + 4 + (WIDTH - LEFT - RIGHT - 8) * share, 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """About five."""
        steps = nice(self.first, self.last, 5, whole=True) or [self.last]
        return tuple((self.x(step), f"{step:,.0f}") for step in steps)

    def skips(self) -> tuple[float, ...]:
        """Places of the skipped steps, each once."""
        return tuple(dict.fromkeys(self.x(step) for step in self.skipped))


@dataclass(frozen=True, slots=True)
class _Up:
    """Heights of values."""

    low: float
    high: float

    def y(self, value: float) -> float:
        """In the SVG's units; what is cut off lies on the edge."""
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share)), 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """About four round numbers."""
        ticks = nice(self.low, self.high, 4)
        places = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 3
        return tuple((self.y(tick), f"{tick:,.{places}f}" if places < 5 else f"{tick:g}") for tick in ticks)


def written(value: float) -> str:
    """A figure to three digits: 0.417, 12.3, 1,250, 2e-05."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-3 else f"{value:.2g}"


def lines(
    title: str, about: str, curves: Mapping[str, Points], across: Across, shares: bool = False
) -> Plot:
    """A plot of one or several figures.

    Args:
        title, about: in words.
        curves: by name in the legend; each has a point at least.
        across: the steps of the whole run.
        shares: the axis goes from 0 to 1.
    """
    up, note = _heights([values for _, values in curves.values()], shares)
    named = len(curves) > 1 or next(iter(curves)) != ""
    traces = tuple(
        _trace(name if named else "", n % COLOURS, points, across, up)
        for n, (name, points) in enumerate(curves.items())
    )
    return Plot(
        title=title,
        about=about,
        label=f"{title}: {'; '.join(_course(name, points) for name, points in curves.items())}",
        traces=traces,
        strips=tuple(_strips(curves, across)),
        x_ticks=across.ticks(),
        y_ticks=up.ticks(),
        skips=across.skips(),
        note=note,
    )


def stacked(title: str, about: str, curves: Mapping[str, Points], across: Across) -> Plot:
    """A plot of shares of one sum: the largest lies at the bottom, all beyond `COLOURS` are "other"."""
    largest = sorted(curves, key=lambda name: -float(curves[name][1].sum()))
    chosen = largest if len(largest) <= COLOURS else largest[: COLOURS - 1]
    steps = np.unique(np.concatenate([points[0] for points in curves.values()]))
    parts = {name: _at(steps, [curves[name]]) for name in chosen}
    if rest := [curves[name] for name in largest if name not in parts]:
        parts["other"] = _at(steps, rest)
    return _stack(title, about, {name: (steps, values) for name, values in parts.items()}, across)


def intervals(title: str, about: str, rows: Sequence[HoldoutRow], across: Across) -> Plot:
    """A plot of the hold-out judges' values with their 95 % intervals."""
    judges = list(dict.fromkeys(row.judge for row in rows))
    by_judge = {name: [r for r in rows if r.judge == name and r.value is not None] for name in judges}
    drawn = {name: spread(found, INTERVALS) for name, found in by_judge.items() if found}
    ends = [v for found in drawn.values() for r in found for v in (r.low, r.value, r.high) if v is not None]
    up, note = _heights([np.array(ends)], False)
    curves = {name: _points((row.step, row.value) for row in found) for name, found in drawn.items()}
    aside = {name: 4.0 * (n - (len(drawn) - 1) / 2) for n, name in enumerate(drawn)}
    return Plot(
        title=title,
        about=about,
        label=f"{title}: {'; '.join(_course(name, points) for name, points in curves.items())}",
        traces=tuple(
            Trace(
                name=name,
                colour=n % COLOURS,
                line=_joined((across.x(s) + aside[name], up.y(v)) for s, v in zip(*points, strict=True)),
                last=written(points[1][-1]),
            )
            for n, (name, points) in enumerate(curves.items())
        ),
        whiskers=tuple(
            _whisker(row, n % COLOURS, across.x(row.step) + aside[name], up)
            for n, (name, found) in enumerate(drawn.items())
            for row in found
        ),
        x_ticks=across.ticks(),
        y_ticks=up.ticks(),
        note=note,
    )


def spread(items: Sequence[T], number: int) -> list[T]:
    """At most so many of them, evenly spaced, the first and the last among them."""
    if len(items) <= number:
        return list(items)
    return [items[n] for n in np.unique(np.linspace(0, len(items) - 1, number).round().astype(int))]


def _points(pairs: Iterable[tuple[float, float | None]]) -> Points:
    steps, values = zip(*pairs, strict=True)
    return np.array(steps, float), np.array(values, float)


def _course(name: str, points: Points) -> str:
    steps, values = points
    start = f"{name} " if name else ""
    return f"{start}{written(values[0])} at step {steps[0]:,.0f}, {written(values[-1])} at {steps[-1]:,.0f}"


def _heights(columns: Sequence[NDArray[np.float64]], shares: bool) -> tuple[_Up, str]:
    """The axis, and what is said of values beyond it: a single spike would flatten everything else."""
    values = np.concatenate(columns)
    if shares and values.min() >= 0 and values.max() <= 1:
        return _Up(0.0, 1.0), ""
    low, high, note = float(values.min()), float(values.max()), ""
    middle, most = float(np.median(values)), float(np.quantile(values, 0.98))
    if len(values) > 20 and 0 < OUTLIER * (most - middle) < high - middle:
        beyond = most + (most - middle)
        note = f"{np.count_nonzero(values > beyond)} above the axis, up to {written(high)}"
        high = beyond
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    bottom = 0.0 if 0 <= low <= 0.5 * high else low - pad
    return _Up(bottom, high + pad), note


def _binned(points: Points, across: Across) -> tuple[NDArray[np.float64], ...]:
    """Steps, means, lows and highs of at most `BINS` stretches of equal length, empty ones left out."""
    steps, values = points
    if len(steps) <= BINS:
        return steps, values, values, values
    width = (across.last - across.first + 1) / BINS
    starts = np.flatnonzero(np.diff(((steps - across.first) // width), prepend=-1.0))
    counts = np.diff(np.append(starts, len(steps)))
    means = (np.add.reduceat(column, starts) / counts for column in (steps, values))
    return *means, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _trace(name: str, colour: int, points: Points, across: Across, up: _Up) -> Trace:
    steps, means, lows, highs = _binned(points, across)
    raw = _polyline(steps, means, across, up)
    smooth = _running_mean(means, up.high)
    is_thinned = len(steps) < len(points[0])
    band = " ".join([_polyline(steps, highs, across, up), _polyline(steps[::-1], lows[::-1], across, up)])
    return Trace(
        name=name,
        colour=colour,
        line=raw if smooth is None else _polyline(steps, smooth, across, up),
        raw="" if smooth is None else raw,
        band=band if is_thinned else "",
        last=written(float(means[-1] if smooth is None else smooth[-1])),
    )


def _running_mean(values: NDArray[np.float64], limit: float) -> NDArray[np.float64] | None:
    """Over a twelfth of the values, fewer at both ends; None if they are too few, or smooth as they are.

    Values above the limit, which are off the axis, do not enter it: one alone would lift a whole stretch.
    """
    seen = np.minimum(values, limit)
    if len(values) < SMOOTHED_FROM or np.abs(np.diff(seen)).sum() <= SMOOTH * np.ptp(seen):
        return None
    half = len(values) // 24
    counted = values <= limit
    sums = np.concatenate([[0.0], np.cumsum(np.where(counted, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(counted)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    number = counts[high] - counts[low]
    smooth: NDArray[np.float64] = np.where(number, (sums[high] - sums[low]) / np.maximum(number, 1), values)
    return smooth


def _polyline(steps: NDArray[np.float64], values: NDArray[np.float64], across: Across, up: _Up) -> str:
    pairs = [(across.x(s), up.y(v)) for s, v in zip(steps.tolist(), values.tolist(), strict=True)]
    if len(pairs) == 1:  # a line of one point would not be seen
        [(x, y)] = pairs
        pairs = [(x - 2.5, y), (x + 2.5, y)]
    return _joined(pairs)


def _joined(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in pairs)


def _strips(curves: Mapping[str, Points], across: Across) -> Iterator[Strip]:
    """Targets for the pointer at every stretch of the curve with most points."""
    binned = {name: _binned(points, across) for name, points in curves.items()}
    steps = max((found[0] for found in binned.values()), key=len)
    edges = (steps[1:] + steps[:-1]) / 2
    ends = [across.x(edge) for edge in edges.tolist()]
    starts = [LEFT, *ends]
    for n, (start, end) in enumerate(zip(starts, [*ends, WIDTH - RIGHT], strict=True)):
        words = []
        for name, (at, means, *_) in binned.items():
            value = written(float(means[np.abs(at - steps[n]).argmin()]))
            words.append(f"{name} {value}" if name else value)
        title = f"step {steps[n]:,.0f}: {', '.join(words)}"
        yield Strip(x=start, width=round(end - start, 1), title=title)


def _at(steps: NDArray[np.float64], curves: Sequence[Points]) -> NDArray[np.float64]:
    """The sum of curves at each of the steps; a curve without a value there adds nothing."""
    total = np.zeros(len(steps))
    for own, values in curves:
        total[np.searchsorted(steps, own)] += values
    return total


def _stack(title: str, about: str, parts: Mapping[str, Points], across: Across) -> Plot:
    binned = {name: _binned(points, across)[:2] for name, points in parts.items()}
    tops = np.cumsum([means for _, means in binned.values()], axis=0)
    up, note = _heights([tops[-1], np.zeros(1)], False)
    floor, areas = np.zeros(tops.shape[1]), []
    for n, (name, (steps, means)) in enumerate(binned.items()):
        edges = [_polyline(steps, tops[n], across, up), _polyline(steps[::-1], floor[::-1], across, up)]
        mean = written(float(means.mean()))
        areas.append(Trace(name=name, colour=n, line=" ".join(edges), last=mean))
        floor = tops[n]
    total = f"{written(float(tops[-1].mean()))} in the mean"
    return Plot(
        title=title,
        about=about,
        label=f"{title}: {total}",
        areas=tuple(areas),
        strips=tuple(_strips(parts, across)),
        x_ticks=across.ticks(),
        y_ticks=up.ticks(),
        note=", ".join(filter(None, [total, note])),
    )


def _whisker(row: HoldoutRow, colour: int, x: float, up: _Up) -> Whisker:
    value = row.value or 0.0
    low, high = (value if end is None else end for end in (row.low, row.high))
    title = f"step {row.step:,}, {row.judge}: {written(value)}"
    if row.low is not None and row.high is not None:
        title += f" [{written(low)}, {written(high)}]"
    return Whisker(x=x, y=up.y(value), low=up.y(low), high=up.y(high), colour=colour, title=title)
