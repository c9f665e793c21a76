"""The geometry of the history's plot: where points, whiskers, levels and ticks lie, in the SVG's units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from sar_eval.histories import Curve, Entry, Series
from sar_eval.types import Metric

WIDTH, HEIGHT = 1240, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 34, 34  # margins around the axes
PADDING = 14  # between the axes' ends and the outermost checkpoints
LETTER = 7.2  # width of a letter of a tick's label
LABEL = 16  # letters of it
CLOSEST = 1 / 150  # of the axis: where steps lie closer, checkpoints are evenly spaced
COLOURS = 6
TICKS = 7
ASIDE = 6  # between runs of one checkpoint, and between series at one step


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One run: a point with its interval. `title` is what hovering and focus show."""

    x: float
    y: float
    low: float
    high: float
    title: str
    is_change: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """A significant change: a line between the checkpoints before and after, with a label."""

    x: float
    label_y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A series in the plot.

    Attributes:
        colour, shape: numbers of its classes.
        points: of the line through the checkpoints, for `polyline`.
        levels: x, x, y of the mean of each stretch between changes; empty if there is no change.
    """

    title: str
    colour: int
    shape: int
    points: str
    marks: tuple[Mark, ...]
    levels: tuple[tuple[float, float, float], ...]
    jumps: tuple[Jump, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Everything that is drawn of one measure of one benchmark."""

    traces: tuple[Trace, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_title: str


Drawn = tuple[Series, Curve]


def plot_of(drawn: Sequence[Drawn]) -> Plot:
    """The plot of one measure in all series of a benchmark."""
    across, ticks, title = _x_axis([series for series, _ in drawn])
    up, y_ticks = _y_axis([curve for _, curve in drawn])
    return Plot(
        traces=tuple(_trace(n, *pair, _Right(across, n, len(drawn)), up) for n, pair in enumerate(drawn)),
        x_ticks=ticks,
        y_ticks=y_ticks,
        x_title=title,
    )


class _Across:
    """Positions of checkpoints: by step, or evenly spaced in their order."""

    def __init__(self, series: Sequence[Series]) -> None:
        entries = [entry for one in series for entry in one.entries]
        by_step = all(one.order not in ("name", "time") for one in series)
        steps = sorted({entry.step for entry in entries if entry.step is not None})
        self.by_step = by_step and all(entry.step is not None for entry in entries)
        gaps = [b - a for a, b in pairwise(steps)]
        self.is_even = not self.by_step or (bool(gaps) and min(gaps) < CLOSEST * (steps[-1] - steps[0]))
        self.steps = steps
        self.first, self.last = 0.0, float(max(entry.level for entry in entries))
        if self.by_step:
            self.first, self.last = (0.0, len(steps) - 1.0) if self.is_even else (steps[0], steps[-1])

    def value(self, entry: Entry) -> float:
        """Of the axis."""
        if not self.by_step or entry.step is None:
            return entry.level
        return self.steps.index(entry.step) if self.is_even else entry.step

    def x(self, value: float) -> float:
        """In the SVG's units; a single checkpoint lies in the middle."""
        room = WIDTH - LEFT - RIGHT - 2 * PADDING
        share = (value - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(LEFT + PADDING + room * share, 1)


def _x_axis(series: Sequence[Series]) -> tuple[_Across, tuple[tuple[float, str], ...], str]:
    across = _Across(series)
    if across.by_step and not across.is_even:
        ticks = [
            (across.x(tick), f"{tick:,.0f}") for tick in nice(across.first, across.last, 9, whole=True)
        ]
        return across, tuple(ticks or [(across.x(across.first), f"{across.first:,.0f}")]), "training step"
    labels: dict[float, str] = {}
    for one in series:
        names = _differing([entry.place for entry in one.entries])
        for entry in one.entries:
            value, name = across.value(entry), _shorten(names[entry.place])
            # Series of other checkpoints have only the order in common.
            labels[value] = name if labels.get(value, name) == name else f"{value + 1:.0f}"
    title = "training step, checkpoints evenly spaced" if across.by_step else "checkpoints in order"
    return across, tuple((across.x(value), label) for value, label in _sparse(labels)), title


def _sparse(labels: dict[float, str]) -> Iterator[tuple[float, str]]:
    """Every n-th label, so that none touches the next."""
    widest = max(map(len, labels.values())) * LETTER + 10
    room = (WIDTH - LEFT - RIGHT) / len(labels)
    every = max(1, math.ceil(widest / room))
    return (pair for n, pair in enumerate(sorted(labels.items())) if n % every == 0)


def _differing(names: Sequence[str]) -> dict[str, str]:
    """Long names without the words that all begin and end with, so that labels tell them apart."""
    words = {name: re.findall(r"[^\W_]+|[\W_]", name) for name in names}
    if len(words) < 2 or max(map(len, words)) <= LABEL:
        return {name: name for name in words}
    first = _shared(list(words.values()))
    last = _shared([word[first:][::-1] for word in words.values()])
    return {name: "".join(word[first : len(word) - last]) or name for name, word in words.items()}


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """How many words all begin with."""
    columns = zip(*lists, strict=False)  # as long as the shortest
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _shorten(text: str) -> str:
    """Both ends of a text that is still too long."""
    half = (LABEL - 1) // 2
    return text if len(text) <= LABEL else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


class _Up:
    """Heights of figures."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        values = [v for curve in curves for f in curve.figures for v in (f.low, f.value, f.high)]
        finite = [v for v in values if v is not None and math.isfinite(v)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        pad = 0.06 * (high - low) or 0.05 * curves[0].scale
        self.low, self.high = low - pad, high + pad
        if low >= 0 and high <= curves[0].scale:  # no room beyond what a score can be
            self.low, self.high = max(0.0, self.low), min(float(curves[0].scale), self.high)

    def y(self, value: float) -> float:
        """In the SVG's units."""
        room = HEIGHT - TOP - BOTTOM
        return round(HEIGHT - BOTTOM - room * (value - self.low) / (self.high - self.low), 1)


def _y_axis(curves: Sequence[Curve]) -> tuple[_Up, tuple[tuple[float, str], ...]]:
    up = _Up(curves)
    ticks = nice(up.low, up.high, TICKS)
    places = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 3
    return up, tuple((up.y(tick), f"{tick:.{places}f}") for tick in ticks)


def nice(low: float, high: float, number: int, whole: bool = False) -> list[float]:
    """About so many round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return []
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class _Right:
    """Positions of one of several series: side by side, where they are few enough."""

    across: _Across
    number: int
    of: int

    def level(self, entry: Entry) -> float:
        """Of a checkpoint."""
        aside = _aside(self.number, self.of) if self.of <= COLOURS else 0.0
        return round(self.across.x(self.across.value(entry)) + aside, 1)

    def runs(self, entries: Sequence[Entry]) -> list[float]:
        """Of every run: those of one checkpoint stand side by side."""
        levels = [entry.level for entry in entries]
        numbers = [levels[:n].count(level) for n, level in enumerate(levels)]
        pairs = zip(entries, numbers, strict=True)
        return [round(self.level(e) + _aside(n, levels.count(e.level)), 1) for e, n in pairs]


def _aside(number: int, of: int) -> float:
    return ASIDE * (number - (of - 1) / 2)


def _trace(number: int, series: Series, curve: Curve, right: _Right, up: _Up) -> Trace:
    xs = {entry.level: right.level(entry) for entry in series.entries}
    jumps = tuple(
        _jump(n, change.at, curve.written(change.value, "+"), xs)
        for n, change in enumerate(curve.level_changes)
    )
    return Trace(
        title=series.differs or series.benchmark,
        colour=number % COLOURS,
        shape=number // COLOURS % 3,
        points=" ".join(_points(series, curve, xs, up)),
        marks=tuple(_marks(series, curve, right.runs(series.entries), up)),
        levels=tuple((xs[a], xs[b - 1], up.y(mean)) for a, b, mean in curve.means) if jumps else (),
        jumps=jumps,
    )


def _points(series: Series, curve: Curve, xs: dict[int, float], up: _Up) -> Iterator[str]:
    """Of each checkpoint the mean of its runs."""
    for level, x in xs.items():
        pairs = zip(series.entries, curve.figures, strict=True)
        values = [f.value for entry, f in pairs if entry.level == level and f.value is not None]
        if values:
            yield f"{x},{up.y(sum(values) / len(values))}"


def _marks(series: Series, curve: Curve, xs: Sequence[float], up: _Up) -> Iterator[Mark]:
    changed = {change.at for change in curve.level_changes}
    for entry, figure, x in zip(series.entries, curve.figures, xs, strict=True):
        if figure.value is None:
            continue
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
        title = _title(series, curve, entry, figure)
        is_change = entry.level in changed
        yield Mark(
            x=x, y=up.y(figure.value), low=up.y(low), high=up.y(high), title=title, is_change=is_change
        )


def _title(series: Series, curve: Curve, entry: Entry, figure: Metric) -> str:
    named = entry.label if entry.step is None else f"step {entry.step:,}, {entry.label}"
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f" [{curve.written(figure.low)}, {curve.written(figure.high)}]"
    of = f", {series.differs}" if series.differs else ""
    return f"{named}: {curve.measure} {curve.written(figure.value)}{interval}, seed {entry.seed}{of}"


def _jump(number: int, at: int, text: str, xs: dict[int, float]) -> Jump:
    """Labels stand on two rows in turn, so that neighbours do not touch."""
    return Jump(x=round((xs[at - 1] + xs[at]) / 2, 1), label_y=12.0 + 13 * (number % 2), text=text)
