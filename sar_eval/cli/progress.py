"""What the terminal shows: live progress, plain log lines, the final table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from sar_eval.cli.terminal import console as plain_console
from sar_eval.cli.terminal import plain, printable
from sar_eval.report.metric_pairs import (
    QUIRKS_NOTE,
    QUIRKS_TITLE,
    MetricPair,
    has_reference,
    nest_details,
    pair_metrics,
    quirk_effects,
)
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent, no_progress
from sar_eval.types import Metric, Summary

LOG_EVERY_S = 20.0


@contextmanager
def showing_progress(quiet: bool) -> Iterator[ProgressCallback]:
    """A callback for the stages: live bars on a terminal, lines elsewhere, nothing with `quiet`."""
    console = plain_console(stderr=True)
    if quiet:
        yield no_progress
    elif console.is_terminal:
        with bars(console) as progress:
            yield LiveProgress(progress)
    else:
        yield LineProgress(console)


def bars(console: Console) -> Progress:
    """The columns of the live display."""
    columns = (
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]}", style="red"),
    )
    return Progress(*columns, console=console)


@contextmanager
def downloading() -> Iterator[Callable[[str, int, int], None]]:
    """Shows (file, bytes so far, bytes in all): a bar each on a terminal, a line each elsewhere."""
    console = plain_console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(printable(name), total=total or None)
                if not console.is_terminal:
                    console.print(printable(f"{name}: {total / 1e6:.0f} MB"))
            progress.update(tasks[name], completed=done, total=total or None)

        yield show


class _Rate:
    """Images a second since the stage began, those of an earlier start left out."""

    def __init__(self, began: float) -> None:
        self.began, self.images = began, 0

    def add(self, images: int) -> str:
        self.images += images
        return f"{self.images / max(time.monotonic() - self.began, 1e-6):.1f} images/s"


class LiveProgress:
    """One bar for the stage, one line for each worker."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.rates: dict[str, _Rate] = {}
        self.bars: dict[str, TaskID] = {}

    def __call__(self, event: ProgressEvent) -> None:
        """Show one event."""
        if event.note:
            self.progress.console.print(printable(event.note), style="yellow", markup=False, emoji=False)
        self._show(event.stage, event.total, event.done, event.added, event.failed)
        if event.worker is not None:
            name = f"{event.stage}/{event.worker}"
            before = self.rates[name].images if name in self.rates else 0
            self._show(name, event.total, before + event.added, event.added, 0)

    def _show(self, name: str, total: int, done: int, added: int, failed: int) -> None:
        stage, _, worker = name.partition("/")
        # A worker's first block began with the stage, not when its first event arrived.
        began = self.rates[stage].began if stage in self.rates else time.monotonic()
        rate = self.rates.setdefault(name, _Rate(began))
        if name not in self.bars:
            label = f"  worker {worker}" if worker else stage
            self.bars[name] = self.progress.add_task(label, total=total, rate="", failed="", completed=done)
        self.progress.update(
            self.bars[name],
            completed=done,
            total=total,
            rate=rate.add(added) if added else "",
            failed=f"{failed} failed" if failed else "",
        )


class LineProgress:
    """A line when a stage starts and ends, and now and then between."""

    def __init__(self, console: Console) -> None:
        self.console, self.rate, self.last_line_at = console, _Rate(time.monotonic()), 0.0

    def __call__(self, event: ProgressEvent) -> None:
        """Print one event, unless the last line is recent."""
        if event.worker is None and not event.note:
            self.rate, self.last_line_at = _Rate(time.monotonic()), time.monotonic()
            self._print(f"{event.stage}: {event.done} of {event.total} images are there already")
            return
        if event.note:
            self._print(event.note)
        rate = self.rate.add(event.added)
        if event.done == event.total or time.monotonic() - self.last_line_at > LOG_EVERY_S:
            self.last_line_at = time.monotonic()
            failed = f", {event.failed} failed" if event.failed else ""
            self._print(f"{event.stage}: {event.done}/{event.total} images, {rate}{failed}")

    def _print(self, line: str) -> None:
        self.console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_summary(summary: Summary, folder: Path, report: Path | None) -> None:
    """The score table, the counts, what is missing, and where the report is."""
    console = plain_console()
    if summary.metrics:
        console.print(score_table(summary))
        if quirk_effects(summary.metrics):
            console.print(quirk_table(summary))
    counts = ("expected", "generated", "judged", "failed")
    console.print(", ".join(f"{getattr(summary, name)} {name}" for name in counts))
    if summary.steps_per_image is not None:
        outside = f", {summary.out_of_range_tokens} text tokens drawn as code 0"
        steps = f"{summary.steps_per_image:.1f} decoder steps an image"
        console.print(steps + (outside if summary.out_of_range_tokens else ""))
    for line in _remarks(summary):
        console.print(printable(line), soft_wrap=True)
    _print_what_is_missing(summary, console)
    console.print(printable(f"run     {folder}"), soft_wrap=True)
    if report is not None:
        console.print(printable(f"report  {report}"), soft_wrap=True)


def _print_what_is_missing(summary: Summary, console: Console) -> None:
    """Why a run is not whole: because it stopped on purpose, or because images have no result."""
    if summary.stopped:
        console.print(printable(f"STOPPED ON PURPOSE: {summary.stopped}"), style="bold", soft_wrap=True)
        console.print("the scores are of what was drawn; without --sequential the same run draws the rest")
    if summary.failed or not (summary.complete or summary.stopped):
        scored = "the scores are of what is there" if summary.partial else "no scores; --partial gives them"
        console.print(f"INCOMPLETE ({scored})", style="bold red")
        for problem in summary.problems[:10]:
            console.print(printable(f"  {problem}"), soft_wrap=True)


def _remarks(summary: Summary) -> Iterator[str]:
    """What the figures do not show."""
    if summary.shard:
        yield f"shard {summary.shard} of a run: `sar-eval join` puts the shards together, then it is scored"
    if summary.devices:
        yield f"images may depend on where they were drawn, in this dtype: {'; '.join(summary.devices)}"


def score_table(summary: Summary) -> Table:
    """Score, 95 % interval and number of images (or prompts) of every metric, at most 80 columns wide.

    If the fold computes the official script's metrics too, they stand beside ours.
    """
    with_reference = has_reference(summary.metrics)
    partial = "  PARTIAL" if summary.partial else ""
    title = plain(f"{summary.benchmark}  {summary.checkpoint}{partial}", style="table.title")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    columns = ("corrected", "95 % CI", "n", "reference", "95 % CI")
    for name in columns if with_reference else ("score", "95 % interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = nest_details(pair_metrics(summary.metrics))
    for number, (label, pair) in enumerate(rows):
        following = rows[number + 1][1] if number + 1 < len(rows) else None
        separator = "-" if with_reference else " to "
        cells = [*_cells(pair.ours, separator), str(pair.ours.n if pair.ours else 0)]
        cells += _cells(pair.reference, separator) if with_reference else ()
        ends_section = following is None or _section(pair) != _section(following)
        style = "bold" if pair.name == "overall" else ""
        kind = "scorer " if pair.group == "scorer" else ""
        table.add_row(plain(kind + label), *cells, end_section=ends_section, style=style)
    return table


def quirk_table(summary: Summary) -> Table:
    """The effect of each quirk of the official script on its score."""
    table = Table(
        title=QUIRKS_TITLE, caption=QUIRKS_NOTE, title_justify="left", caption_justify="left", min_width=72
    )
    table.add_column("")
    for name in ("effect", "95 % interval", "n"):
        table.add_column(name, justify="right")
    for name, metric in quirk_effects(summary.metrics):
        table.add_row(plain(name), *_cells(metric, " to ", "+"), str(metric.n))
    return table


def _section(pair: MetricPair) -> str:
    """What rows between two rules have in common: a category with its details, or the kind of metric."""
    if pair.group in ("category", "detail"):
        return f"category/{pair.label.partition(' - ')[0]}"
    return pair.name.partition("/")[0]


def _cells(metric: Metric | None, separator: str, sign: str = "-") -> tuple[str, str]:
    """Value and interval, "-" for a missing one."""
    if metric is None or metric.value is None:
        return "-", "-"
    value = metric.written(metric.value, sign)
    if metric.low is None or metric.high is None:
        return value, "-"
    return value, f"{metric.written(metric.low, sign)}{separator}{metric.written(metric.high, sign)}"
