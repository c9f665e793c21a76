"""A synthesis for other programs: `--log-json` (a line an event) and `--metrics` (Prometheus text).

Neither stops the run: what cannot be written is said once, and left out from then on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from sar_eval.cli.terminal import say
from sar_eval.errors import StorageFailed

if TYPE_CHECKING:
    from sar_eval.synthesis.monitor import Monitor, SynthEvent
    from sar_eval.synthesis.progress import SynthProgress

METRICS_EVERY_S = 1.0


@contextmanager
def json_log(path: Path, progress: SynthProgress) -> Iterator[Monitor]:
    """A monitor that appends a line of JSON for each event to a file, or to standard output for `-`.

    Raises:
        BadInput: the name is no file's.
        StorageFailed: it cannot be opened.
    """
    with ExitStack() as stack:
        write = typer.echo if str(path) == "-" else _appending(stack.enter_context(_opened(path)))

        def tell(event: SynthEvent) -> None:
            write(json.dumps(event_json(event, progress, time.time()), separators=(",", ":")))

        yield _tolerant(tell, f"--log-json {path}")


def event_json(event: SynthEvent, progress: SynthProgress, now: float) -> dict[str, Any]:
    """The event, and how far the run is after it; keys that do not apply are left out.

    Args:
        event: of the driver.
        progress: which has counted it.
        now: seconds since the epoch.
    """
    about: dict[str, Any] = {"block": event.block, "worker": event.worker, "note": event.note or None}
    if event.record is not None:
        record = event.record
        about |= {
            "attempt": record.attempt,
            "prompts": record.prompts,
            "draws": record.draws,
            "fates": dict(record.fates),
            "data": record.data or None,
            "manifest": record.manifest,
            "bytes": record.data_bytes + record.manifest_bytes,
            "problems": list(record.problems) or None,
            "seconds": round(event.seconds, 3),
        }
    state = {"done": event.done_blocks, "total": event.total_blocks} | progress_json(progress)
    given = {name: value for name, value in about.items() if value is not None}
    return {"time": round(now, 3), "event": event.kind} | given | state


def progress_json(progress: SynthProgress) -> dict[str, Any]:
    """Rate, kept share with its interval, and time left; None for what is not known yet."""
    share, rate = progress.overall.share, progress.rate(progress.overall)
    low, high = share.interval() or (None, None)
    left = progress.seconds_left
    return {
        "pictures_per_second": None if rate is None else round(rate, 3),
        "kept": {"share": share.value, "low": low, "high": high},
        "lacking": progress.overall.lacking,
        "seconds_left": None if left is None else round(left, 1),
    }


def metrics_file(path: Path, progress: SynthProgress) -> Monitor:
    """A monitor that keeps a Prometheus text file up to date, replaced as a whole.

    Raises:
        BadInput: the name is no file's.
    """
    from sar_eval.storage.files import check_output, write_bytes
    from sar_eval.synthesis.metrics import prometheus_text

    target = check_output("--metrics", path)
    last = -METRICS_EVERY_S

    def tell(event: SynthEvent) -> None:
        nonlocal last
        if event.kind in ("start", "end") or time.monotonic() - last >= METRICS_EVERY_S:
            last = time.monotonic()
            write_bytes(target, prometheus_text(progress, time.time()).encode())

    return _tolerant(tell, f"--metrics {path}")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    from sar_eval.storage.files import check_output, storage_errors

    target = check_output("--log-json", path)
    with storage_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("a", encoding="utf-8")
    try:
        yield file
    finally:
        _close(file)


def _close(file: TextIO) -> None:
    """Close a file whose disk may be full: its last line is lost then, and that was said."""
    try:
        file.close()
    except OSError as error:
        say(f"note: the log's last line was not written: {error.strerror}", err=True)


def _appending(file: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        file.write(f"{line}\n")
        file.flush()

    return write


def _tolerant(monitor: Monitor, what: str) -> Monitor:
    """The monitor until it fails to write; then that is said once."""
    failed = False

    def tell(event: SynthEvent) -> None:
        nonlocal failed
        if failed:
            return
        try:
            monitor(event)
        except (OSError, StorageFailed) as error:
            failed = True
            reason = error.__cause__ if isinstance(error, StorageFailed) else error
            why = getattr(reason, "strerror", None) or error
            say(f"note: {what} cannot be written ({why}): the run goes on without it", err=True)

    return tell
