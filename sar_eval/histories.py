"""What a history says of runs over time: plain records that the terminal, the page and JSON share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sar_eval.types import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run of a series.

    Attributes:
        checkpoint: its name, as the run has it.
        label: a short name of it.
        path: of the run folder or baseline file.
        step: of the training; None if not known.
        date: when the run was begun, `2026-11-26T07:02`, by the file's own time.
        seed: of the run.
        level: counts checkpoints: runs of the same checkpoint, with other seeds, have the same number.
    """

    checkpoint: str
    label: str
    path: str
    step: int | None
    date: str
    seed: int
    level: int

    @property
    def place(self) -> str:
        """What orders it, in words: its step, else its name."""
        return self.label if self.step is None else f"{self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A checkpoint's figure less that of the one before, in the measure's unit, as `compare` gives it.

    Attributes:
        low, high: 95 % interval of this difference alone; None if it cannot be estimated.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """A significant change: levels `first` up to `at` - 1 against as many, `at` up to `end` - 1.

    Attributes:
        value: later less earlier mean, in the measure's unit.
        low, high: 95 % interval, simultaneous over all changes that were looked for (as p is).
        p: adjusted for all of them.
    """

    first: int
    at: int
    end: int
    value: float
    low: float
    high: float
    p: float

    @property
    def p_words(self) -> str:
        """`p = 0.031`, `p < 0.001`."""
        return "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One measure over a series.

    Attributes:
        figures: of each entry.
        changes: of each entry, to the checkpoint before; None for the first, and for further runs of the
            same checkpoint.
        level_changes: where the level changes by more than luck explains.
        means: of each level between those changes: (first level, end, mean figure).
    """

    measure: str
    scale: int
    figures: tuple[Metric, ...]
    changes: tuple[Change | None, ...]
    level_changes: tuple[LevelChange, ...]
    means: tuple[tuple[int, int, float], ...]

    def written(self, value: float | None, sign: str = "-") -> str:
        """A value as papers print it, 0.797 or 79.66; "-" for none."""
        if value is None:
            return "-"
        return Metric(self.measure, None, None, None, 0, self.scale).written(value, sign)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Runs that differ in their checkpoint alone, in order.

    Attributes:
        differs: what is unlike in the benchmark's other series, in words; "" if there is none.
        curves: of every measure, the one asked for first.
        order: what it is ordered by: `step`, `name`, `time` or a file.
    """

    benchmark: str
    differs: str
    entries: tuple[Entry, ...]
    curves: tuple[Curve, ...]
    order: str

    @property
    def title(self) -> str:
        """Benchmark, and what differs."""
        return f"{self.benchmark}: {self.differs}" if self.differs else self.benchmark

    def first_of(self, level: int) -> Entry:
        """The first run of a checkpoint."""
        return next(entry for entry in self.entries if entry.level == level)

    def marked(self, curve: Curve) -> Iterator[tuple[Entry, LevelChange]]:
        """The significant changes, each with the first run of the new level."""
        return ((self.first_of(change.at), change) for change in curve.level_changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A run that is in no series, and why."""

    path: str
    benchmark: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The runs of a folder, by benchmark and in order."""

    folder: str
    measure: str
    series: tuple[Series, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def sentence(series: Series, curve: Curve, change: LevelChange) -> str:
    """A significant change in words."""
    number = change.end - change.at
    value, low, high = (curve.written(v, "+") for v in (change.value, change.low, change.high))
    place = series.first_of(change.at).place
    return (
        f"from {place} on: {curve.measure} {value}, 95 % interval [{low}, {high}], {change.p_words} "
        f"({number} checkpoint{'' if number == 1 else 's'} on either side)"
    )
