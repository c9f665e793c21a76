"""The table of differences: figures as text, each with its meaning in words, and the forest plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sar_eval.comparisons import Difference, Pair, p_words
from sar_eval.report.scores import HINTS

NONE = "\N{EN DASH}"
MEASURES_LISTED = 1000  # lines of a table
TICKS = 5  # about as many
SMALLEST = 1e-12  # length of an axis: less is how means are rounded


@dataclass(frozen=True, slots=True)
class Axis:
    """Of a forest plot: from `low` to `high`, both in the measure's unit, with 0 between them.

    `ticks` are labels, "" for lines without one, with their places in percent.
    """

    low: float
    high: float
    ticks: tuple[tuple[str, float], ...]

    def place(self, value: float | None) -> float | None:
        """Where a value is, in percent of the axis."""
        if value is None:
            return None
        return round(100 * (value - self.low) / (self.high - self.low), 3)


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure of the table, and what it means in plain words."""

    text: str
    meaning: str


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One measure: its cells by column, and its line of the forest plot in percent of the axis.

    `outcome` is the class that styles it; `filter` selects the measure's images.
    """

    label: str
    hint: str
    outcome: str
    cells: dict[str, Cell]
    point: float | None
    low: float | None
    high: float | None
    filter: str


@dataclass(frozen=True, slots=True)
class DifferenceTable:
    """The rows of a pair of runs under their headings, on one axis; `left_out` more are not shown."""

    axis: Axis
    groups: list[tuple[str, list[DifferenceRow]]]
    left_out: int

    @property
    def overall(self) -> DifferenceRow:
        """The headline."""
        return self.groups[0][1][0]


def difference_table(pair: Pair) -> DifferenceTable:
    """The table of a pair; its first row is the headline."""
    listed = pair.differences[:MEASURES_LISTED]
    drawn = [found for found in listed if _is_drawn(found)]
    axis = make_axis([limit for found in drawn for limit in (found.value, found.low, found.high)])
    groups: dict[str, list[DifferenceRow]] = {}
    for found in listed:
        groups.setdefault(_heading(found.group), []).append(_row(found, pair, axis))
    return DifferenceTable(axis, list(groups.items()), len(pair.differences) - len(listed))


def overview(pairs: Sequence[Pair]) -> tuple[Axis, list[DifferenceRow]]:
    """The headlines of all pairs on one axis."""
    found = [pair.overall for pair in pairs]
    axis = make_axis([limit for one in found for limit in (one.value, one.low, one.high)])
    return axis, [_row(pair.overall, pair, axis) for pair in pairs]


def make_axis(values: Sequence[float | None]) -> Axis:
    """An axis with round ends over these values and 0."""
    known = [value for value in values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    step = _round_step((high - low) / TICKS) if high - low > SMALLEST else 1.0
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        first, last = -1, 1
    span = last - first
    every = 1 if span <= TICKS else 2  # labels have room in a narrow window
    ticks = tuple(
        (_tick_label(number, number * step, every), 100 * (number - first) / span)
        for number in range(first, last + 1)
    )
    return Axis(first * step, last * step, ticks)


def _tick_label(number: int, value: float, every: int) -> str:
    if number % every:
        return ""
    return f"{value:+.6g}" if number else "0"


def _round_step(rough: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not smaller, times a power of ten."""
    unit = float(10.0 ** math.floor(math.log10(rough)))
    return next(factor * unit for factor in (1, 2, 5, 10, 20) if factor * unit >= rough)


def _heading(group: str) -> str:
    if group in ("", "scorer"):
        return group and "Scorers"
    if group == "reference":
        return "By the official script's rules"
    outer, _, inner = group.rpartition("/")
    return f"By {inner}, by the official script's rules" if outer == "reference" else f"By {group}"


def _is_drawn(found: Difference) -> bool:
    """Whether it is on the plot: scorers' numbers have other units than the benchmark's figures."""
    return found.group != "scorer"


def _row(found: Difference, pair: Pair, axis: Axis) -> DifferenceRow:
    name = found.measure.rpartition("/")[2]
    label = name.replace("_", " ") or "untagged"
    is_drawn = _is_drawn(found)
    return DifferenceRow(
        label=label if found.group else label.capitalize(),
        hint=HINTS.get(found.measure, ""),
        outcome=f"{found.winner}-better" if found.winner else "undecided",
        cells=_cells(found, pair.first, pair.second),
        point=axis.place(found.value) if is_drawn else None,
        low=axis.place(found.low) if is_drawn else None,
        high=axis.place(found.high) if is_drawn else None,
        filter=f"{found.group}={quote(name, safe='')}" if found.group in ("task", "split") and name else "",
    )


def _cells(found: Difference, a: str, b: str) -> dict[str, Cell]:
    over = f"over the {found.draws:,} images of {found.prompts:,} prompts that both have"
    return {
        "first": Cell(found.written(found.first, "-"), f"The score of {a} {over}"),
        "second": Cell(found.written(found.second, "-"), f"The score of {b} {over}"),
        "value": Cell(found.written(found.value), _value_words(found, a, b)),
        "interval": Cell(_interval(found), _interval_words(found)),
        "p": Cell(p_words(found).removeprefix("p ").removeprefix("= "), _p_words(found)),
        "record": Cell(
            f"{found.won:,} \N{MIDDLE DOT} {found.lost:,} \N{MIDDLE DOT} {found.tied:,}",
            f"{b} scores higher on {found.won:,} prompts, lower on {found.lost:,}, and the same on "
            f"{found.tied:,}",
        ),
        "detectable": Cell(
            NONE if found.detectable is None else found.written(found.detectable, "-"),
            "The smallest true difference that this comparison finds in 4 of 5 cases (80 % power): a "
            "smaller one is likely to be missed",
        ),
        "needed": Cell(_needed(found), _needed_words(found)),
    }


def _value_words(found: Difference, a: str, b: str) -> str:
    if not found.value:
        return f"{b} and {a} score the same"
    direction = "higher" if found.value > 0 else "lower"
    return f"{b} scores {found.written(abs(found.value), '-')} {direction} than {a}"


def _interval(found: Difference) -> str:
    if found.low is None or found.high is None:
        return NONE
    return f"[{found.written(found.low)}, {found.written(found.high)}]"


def _interval_words(found: Difference) -> str:
    if found.low is None:
        return "Too few prompts for an interval"
    meaning = "With 95 % confidence the true difference lies in here: of 20 such intervals 19 contain it"
    if found.winner:
        return f"{meaning}. 0 lies outside: the two are told apart"
    return f"{meaning}. The two are not told apart by interval and p together"


def _p_words(found: Difference) -> str:
    alone = f"{found.p:.3f}" if found.p >= 0.001 else "below 0.001"
    return (
        "If neither were better, chance alone would give a difference at least as large with this "
        f"probability. Adjusted (Holm) for how many questions are asked at once; alone it is {alone}"
    )


def _needed(found: Difference) -> str:
    if found.prompts_needed is None:
        return NONE
    images = NONE if found.images_needed is None else f"{found.images_needed:,}"
    return f"{found.prompts_needed:,} / {images}"


def _needed_words(found: Difference) -> str:
    if found.prompts_needed is None:
        return "No difference was seen, so no number of prompts follows from it"
    first = (
        "A true difference as large as the one seen is found in 4 of 5 cases with "
        f"{found.prompts_needed:,} prompts of as many images"
    )
    if found.images_needed is None:
        return f"{first}; no number of images of the same prompts would do"
    return f"{first}, or with {found.images_needed:,} images of each of the {found.prompts:,} prompts"
