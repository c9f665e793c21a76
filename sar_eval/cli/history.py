"""`history`: all runs of a folder over checkpoints, as a table, a page and a plot."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import AsJson
from sar_eval.cli.terminal import console, printable, say
from sar_eval.options import check_name

if TYPE_CHECKING:
    from sar_eval.histories import History


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(history)


def history(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with run folders and baselines.")],
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Only runs of this benchmark; else each by itself.")
    ] = None,
    measure: Annotated[
        str, typer.Option("--measure", help="The measure to print, and to show first, as task/counting.")
    ] = "overall",
    order: Annotated[
        str,
        typer.Option(
            "--order",
            metavar="step|name|time|FILE",
            help="Order of the checkpoints: the training step in their names, the names, when the runs "
            "began, or a file that lists names (one a line, or a table with columns name and step).",
        ),
    ] = "step",
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write; DIR/history.html by default.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the tables as Markdown, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the runs of a folder over checkpoints: scores, intervals, and where the level changes.

    Runs that differ in more than their checkpoint (suite, judge, protocol, images per prompt, training) are
    separate series. A change of level is marked where it is more than luck explains, over the whole series
    at once. Runs that are in no series are listed with the reason.
    """
    from sar_eval.cli.history_table import markdown as as_markdown
    from sar_eval.report.history_page import write_history
    from sar_eval.stages.history import make_history
    from sar_eval.storage.files import write_bytes

    for flag, value in (("DIR", folder), ("--order", order), ("--out", out), ("--markdown", markdown)):
        check_name(str(value or ""), flag)
    found = make_history(folder, benchmark=benchmark, measure=measure, order=order)
    page = write_history(found, out or folder / "history.html")
    if markdown is not None:
        write_bytes(markdown, "".join(f"{line}\n" for line in as_markdown(found)).encode())
    for note in found.notes:
        say(f"note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"page": str(page)}, indent=2))
    else:
        _print(found)
        say(f"page    {page}")


def _print(history: History) -> None:
    """The tables, what is marked in them, and the runs that are in none."""
    from sar_eval.cli.history_table import history_table, remarks

    screen = console()
    if not screen.is_terminal:
        screen.width = 1000  # nothing is cut for want of room
    for series in history.series:
        curve = series.curves[0]
        screen.print(history_table(series, curve, screen.is_terminal), soft_wrap=True)
        for line in remarks(series, curve):
            screen.print(printable(line), soft_wrap=True)
        screen.print()
    for run in history.left_out:
        say(f"left out: {run.path}: {run.why}")
