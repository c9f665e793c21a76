"""What the terminal shows while a set is made: a live table, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from sar_eval.cli.synth_log import json_log, metrics_file
from sar_eval.cli.terminal import console as plain_console
from sar_eval.cli.terminal import plain, printable
from sar_eval.options import option

if TYPE_CHECKING:
    from sar_eval.stats.running_share import RunningShare
    from sar_eval.synthesis.monitor import Monitor, SynthEvent
    from sar_eval.synthesis.progress import SynthProgress, Tally

LINE_EVERY_S = 20.0
MOST_WORKERS = 24  # that have a row; there may be thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What shows and records how a synthesis goes."""

    quiet: bool = option("No progress.", "run", "--quiet", "-q", default=False)
    log_json: Path | None = option(
        "Append each event to this file as a line of JSON; - is standard output, in place of the table.",
        "run",
        metavar="FILE|-",
    )
    metrics: Path | None = option(
        "Keep this file up to date with metrics in Prometheus' text format.", "run", metavar="FILE"
    )

    @property
    def fills_stdout(self) -> bool:
        """Whether standard output is for the log's lines, so that words for people go to standard error."""
        return str(self.log_json) == "-"


@contextmanager
def showing_synthesis(watch: Watch) -> Iterator[Monitor]:
    """A monitor for the driver: the files asked for, and a live table or lines on standard error.

    Raises:
        BadInput: a file is asked for by a name that is none.
        StorageFailed: the log cannot be opened.
    """
    from sar_eval.synthesis.monitor import several
    from sar_eval.synthesis.progress import SynthProgress

    progress = SynthProgress()
    monitors: list[Monitor] = [progress]  # first: the others show what it has counted
    with ExitStack() as stack:
        if watch.log_json is not None:
            monitors.append(stack.enter_context(json_log(watch.log_json, progress)))
        if watch.metrics is not None:
            monitors.append(metrics_file(watch.metrics, progress))
        if not watch.quiet and not watch.fills_stdout:
            monitors.append(stack.enter_context(on_terminal(plain_console(stderr=True), progress)))
        yield several(*monitors)


@contextmanager
def on_terminal(console: Console, progress: SynthProgress) -> Iterator[Monitor]:
    """A live table on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield SynthLines(console, progress)
        return
    with _live_table(console, progress) as live:

        def tell(event: SynthEvent) -> None:
            if event.note:
                live.console.print(printable(event.note), style="yellow", markup=False, emoji=False)

        yield tell


def _live_table(console: Console, progress: SynthProgress) -> Live:
    # Standard output is left alone: what rich redirects would go to standard error with the table.
    return Live(
        console=console,
        get_renderable=lambda: live_view(progress),
        refresh_per_second=2,
        redirect_stdout=False,
    )


def live_view(progress: SynthProgress) -> Group:
    """A bar with one line for all, and a table with a row for each worker."""
    bar = Table.grid()  # a bar by itself ends no line
    bar.add_row(ProgressBar(total=max(progress.total, 1), completed=progress.done, width=60))
    return Group(bar, plain(overall_line(progress)), _worker_table(progress))


def overall_line(progress: SynthProgress) -> str:
    """Blocks, pictures a second, kept share, draws without a result, time left."""
    tally = progress.overall
    parts = [f"{progress.done}/{progress.total} blocks", f"{rate_text(progress.rate(tally))} pictures/s"]
    if tally.share.draws:
        parts.append(f"kept {share_text(tally.share)}")
    if tally.lacking:
        parts.append(f"{tally.lacking} without a result")
    if progress.elsewhere:
        parts.append(f"{progress.elsewhere} made by another driver, too")
    if progress.done < progress.total and (left := progress.seconds_left) is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def _worker_table(progress: SynthProgress) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("worker")
    for name in ("blocks", "draws", "pictures/s", "kept, 95 % interval", "no result", "s/block"):
        table.add_column(name, justify="right", no_wrap=True)
    workers = sorted(progress.workers.items())
    for index, tally in workers[:MOST_WORKERS]:
        table.add_row(str(index), *_worker_cells(progress, tally))
    if len(workers) > MOST_WORKERS:
        table.add_row(f"and {len(workers) - MOST_WORKERS} more")
    return table


def _worker_cells(progress: SynthProgress, tally: Tally) -> tuple[str, ...]:
    return (
        str(tally.blocks),
        str(tally.share.draws),
        rate_text(progress.rate(tally)),
        share_text(tally.share),
        str(tally.lacking),
        f"{tally.seconds / tally.blocks:.1f}",
    )


class SynthLines:
    """A line at the start and the end, for each note, and now and then between."""

    def __init__(self, console: Console, progress: SynthProgress) -> None:
        self.console, self.progress, self.last_line_at = console, progress, time.monotonic()

    def __call__(self, event: SynthEvent) -> None:
        """Print one event, unless the last line is recent."""
        if event.kind == "start":
            there = "there already" if event.done_blocks else "there"
            self._print(f"synth: {event.done_blocks} of {event.total_blocks} blocks are {there}")
        if event.note:
            self._print(event.note)
        recent = time.monotonic() - self.last_line_at < LINE_EVERY_S
        if event.kind == "end" or (event.kind == "block" and not recent):
            self.last_line_at = time.monotonic()
            self._print(f"synth: {overall_line(self.progress)}")

    def _print(self, line: str) -> None:
        self.console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)


def rate_text(per_second: float | None) -> str:
    """Three digits; "-" where it is not known."""
    return "-" if per_second is None else f"{per_second:.3g}" if per_second < 100 else f"{per_second:.0f}"


def share_text(share: RunningShare) -> str:
    """`31.2 % (29.8 to 32.6)`."""
    if (limits := share.interval()) is None or share.value is None:
        return "-"
    return f"{100 * share.value:.1f} % ({100 * limits[0]:.1f} to {100 * limits[1]:.1f})"


def duration(seconds: float) -> str:
    """`2 d 3 h`, `3 h 5 min`, `5 min 10 s`: two units are enough for an estimate."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = round(seconds)
    first = next((n for n, (_, size) in enumerate(units) if left >= size), len(units) - 1)
    words = []
    for name, size in units[first : first + 2]:
        count, left = divmod(left, size)
        words.append(f"{count} {name}")
    return " ".join(words if words[-1][0] != "0" else words[:1])
