"""Write a history's page: one file that opens from disk without network requests.

Every measure's plots and tables are in the page; its script shows those of one measure at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sar_eval.histories import Change, Curve, Entry, History, LevelChange, Series, sentence
from sar_eval.report.document import render
from sar_eval.report.history_plot import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot, plot_of
from sar_eval.storage.files import write_bytes
from sar_eval.types import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run in a table, as text; `change` is "" where there is none.

    `path` is that of the run below the history's folder.
    """

    entry: Entry
    path: str
    figure: str
    interval: str
    change: str
    change_interval: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A series under one measure."""

    title: str
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One measure of one benchmark."""

    measure: str
    label: str
    plot: Plot
    tables: tuple[Table, ...]


def write_history(history: History, path: Path) -> Path:
    """Write the page and return its path.

    Raises:
        StorageFailed: it cannot be written.
    """
    write_bytes(path, _page(history).encode())
    return path


def _page(history: History) -> str:
    benchmarks = dict.fromkeys(series.benchmark for series in history.series)
    measures = {
        curve.measure: _label(curve.measure) for series in history.series for curve in series.curves
    }
    values = {
        "history": history,
        "folder": Path(history.folder).resolve().name or history.folder,
        "panels": {name: list(_panels(history, name)) for name in benchmarks},
        "measures": measures,
        "runs": sum(len(series.entries) for series in history.series),
        "box": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP},
    }
    return render("history.html.j2", ["report.css", "history.css"], ["history.js"], values)


def _panels(history: History, benchmark: str) -> Iterator[Panel]:
    chosen = [series for series in history.series if series.benchmark == benchmark]
    for measure in dict.fromkeys(curve.measure for series in chosen for curve in series.curves):
        drawn = [(s, curve) for s in chosen for curve in s.curves if curve.measure == measure]
        tables = tuple(_table(series, curve, history.folder) for series, curve in drawn)
        yield Panel(measure=measure, label=_label(measure), plot=plot_of(drawn), tables=tables)


def _label(measure: str) -> str:
    """`task: two object` of `task/two_object`."""
    return measure.replace("/", ": ").replace("_", " ")


def _table(series: Series, curve: Curve, folder: str) -> Table:
    changed = {change.at: change for change in curve.level_changes}
    rows, seen = [], set[int]()
    for entry, figure, change in zip(series.entries, curve.figures, curve.changes, strict=True):
        mark = None if entry.level in seen else changed.get(entry.level)
        seen.add(entry.level)
        rows.append(_row(curve, entry, entry.path.removeprefix(f"{folder}/"), figure, change, mark))
    sentences = tuple(sentence(series, curve, change) for change in curve.level_changes)
    return Table(title=series.differs, rows=tuple(rows), sentences=sentences)


def _row(
    curve: Curve, entry: Entry, path: str, figure: Metric, change: Change | None, mark: LevelChange | None
) -> Row:
    return Row(
        entry=entry,
        path=path,
        figure=curve.written(figure.value),
        interval=_interval(curve, figure.low, figure.high, "-"),
        change="" if change is None else curve.written(change.value, "+"),
        change_interval="" if change is None else _interval(curve, change.low, change.high, "+"),
        mark="" if mark is None else f"{curve.written(mark.value, '+')}, {mark.p_words}",
    )


def _interval(curve: Curve, low: float | None, high: float | None, sign: str) -> str:
    if low is None or high is None:
        return ""
    return f"[{curve.written(low, sign)}, {curve.written(high, sign)}]"
