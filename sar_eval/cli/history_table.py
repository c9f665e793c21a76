"""A history on the terminal and as Markdown: one line a run, and a sentence for every change of level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sar_eval.cli.terminal import one_line, plain
from sar_eval.histories import Change, Curve, Entry, Series, sentence
from sar_eval.types import Metric

if TYPE_CHECKING:
    from rich.table import Table

    from sar_eval.histories import History

WIDTH = 80
GAP = 2  # columns between two columns of the table
HEADER = ("step", "checkpoint", "score", "95 % CI", "change", "95 % CI", "", "date")
IS_TEXT = (False, True, False, False, False, False, True, True)  # aligned to the left
NO_CHANGE = "no change of level is more than luck explains"


def history_table(series: Series, curve: Curve, on_terminal: bool) -> Table:
    """At most 80 columns wide on a terminal, with long names cut; plain, with whole names, elsewhere."""
    from rich import box
    from rich.table import Table

    rows = list(_rows(series, curve))
    table = Table(
        title=plain(f"{series.title}  {curve.measure}", style="table.title"),
        title_justify="left",
        box=box.SIMPLE_HEAD if on_terminal else None,
        padding=(0, GAP - 1, 0, 0),
        show_edge=False,
    )
    for name, is_text in zip(HEADER, IS_TEXT, strict=True):
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    room = _room_for_names(rows) if on_terminal else 0
    for step, name, *rest in rows:
        style = "bold" if rest[-2] else ""
        table.add_row(step, plain(_cut(name, room)), *map(plain, rest), style=style)
    return table


def remarks(series: Series, curve: Curve) -> Iterator[str]:
    """What is marked in the table, in words."""
    for change in curve.level_changes:
        yield f"* {sentence(series, curve, change)}"
    if not curve.level_changes and series.entries[-1].level > 0:
        yield NO_CHANGE


def markdown(history: History) -> Iterator[str]:
    """The tables, sentences, and the runs that are left out, as lines of Markdown."""
    for series in history.series:
        curve = series.curves[0]
        yield f"### {_escape(series.title)}: {_escape(curve.measure)}"
        yield ""
        yield f"| {' | '.join(HEADER)} |"
        yield f"| {' | '.join(':---' if is_text else '---:' for is_text in IS_TEXT)} |"
        yield from (f"| {' | '.join(map(_escape, row))} |" for row in _rows(series, curve))
        yield ""
        yield from (f"- {_escape(line)}" for line in remarks(series, curve))
        yield ""
    if history.left_out:
        yield "Left out:"
        yield ""
        yield from (f"- {_escape(f'{run.path}: {run.why}')}" for run in history.left_out)


def _rows(series: Series, curve: Curve) -> Iterator[tuple[str, ...]]:
    """The cells of every run, by `HEADER`."""
    changed, seen = {change.at for change in curve.level_changes}, set[int]()
    for entry, figure, change in zip(series.entries, curve.figures, curve.changes, strict=True):
        mark = "*" if entry.level in changed - seen else ""
        seen.add(entry.level)
        yield (
            "" if entry.step is None else str(entry.step),
            _name(series, entry),
            *_figure(curve, figure),
            *_change(curve, change),
            mark,
            entry.date[:10],
        )


def _name(series: Series, entry: Entry) -> str:
    """With the seed, where a checkpoint was run more than once."""
    again = sum(other.level == entry.level for other in series.entries) > 1
    return f"{entry.label} seed {entry.seed}" if again else entry.label


def _figure(curve: Curve, figure: Metric) -> tuple[str, str]:
    return curve.written(figure.value), _interval(curve, figure.low, figure.high, "-")


def _change(curve: Curve, change: Change | None) -> tuple[str, str]:
    if change is None:
        return "", ""
    return curve.written(change.value, "+"), _interval(curve, change.low, change.high, "+")


def _interval(curve: Curve, low: float | None, high: float | None, sign: str) -> str:
    if low is None or high is None:
        return "-"
    return f"{curve.written(low, sign)} {curve.written(high, sign)}"


def _room_for_names(rows: Sequence[Sequence[str]]) -> int:
    """Letters that are left for names."""
    others = [max(map(len, column)) for n, column in enumerate(zip(HEADER, *rows, strict=True)) if n != 1]
    return max(len(HEADER[1]), WIDTH - sum(others) - GAP * len(HEADER))


def _cut(name: str, room: int) -> str:
    """The end of a long name: there it differs from the others."""
    name = one_line(name)
    return f"..{name[2 - room :]}" if 0 < room < len(name) else name


def _escape(text: str) -> str:
    """Names are anybody's: no markup, no new cell, no new line."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    for sign in "\\`*_[]|~#!@":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
