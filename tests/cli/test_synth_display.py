"""What a synthesis shows: a live table, lines, JSON lines, a file of metrics; none of them ends the run."""

import io
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from sar_eval.cli.synth_progress import (
    MOST_WORKERS,
    Watch,
    duration,
    live_view,
    on_terminal,
    overall_line,
    rate_text,
    showing_synthesis,
)
from sar_eval.errors import BadInput
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.monitor import SynthEvent, several
from sar_eval.synthesis.progress import SynthProgress

FATES = {"kept": 20, "filtered: hps > 0.27": 9, "failed": 3}


def _block(number: int, worker: int = 0) -> SynthEvent:
    manifest = f"manifest/part-{number:09d}-0.parquet"
    record = BlockRecord(number, 0, "", manifest, 8, 32, 0, 10, FATES, (f"{8 * number}/0: out of ink",))
    return SynthEvent("block", number + 1, 6, number, worker, record, 2.5)


EVENTS = [
    SynthEvent("start", 0, 6),
    _block(0),
    _block(1, worker=3),
    SynthEvent("note", 2, 6, note="worker 3 died [red]x[/red] \x1b[2J"),
    SynthEvent("block", 3, 6, 2, 0),
    SynthEvent("end", 3, 6, note="interrupted"),
]


def _screen(terminal: bool) -> tuple[Console, io.StringIO]:
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=terminal, width=160, color_system=None, markup=False)
    return console, buffer


@pytest.mark.parametrize("terminal", [True, False])
def test_all_that_happens_is_shown(terminal: bool) -> None:
    console, buffer = _screen(terminal)
    progress = SynthProgress()
    with on_terminal(console, progress) as show:
        for event in EVENTS:
            several(progress, show)(event)
    text = buffer.getvalue()
    assert "3/6 blocks" in text
    assert "kept 62.5 % (" in text
    assert "6 without a result" in text
    assert "1 made by another driver, too" in text
    assert "worker 3 died [red]x[/red] \\x1b[2J" in text  # nothing in a note acts
    assert ("pictures/s  kept, 95 % interval" in text) == terminal
    assert ("\x1b" in text) == terminal  # of rich's own


def test_lines_come_now_and_then() -> None:
    console, buffer = _screen(False)
    progress = SynthProgress()
    with on_terminal(console, progress) as show:
        for event in (EVENTS[0], *map(_block, range(6)), SynthEvent("end", 6, 6)):
            several(progress, show)(event)
    lines = buffer.getvalue().splitlines()
    assert lines[0] == "synth: 0 of 6 blocks are there"
    assert len(lines) == 2
    assert lines[1].startswith("synth: 6/6 blocks")
    assert "left" not in lines[1]


def test_thousands_of_workers_have_no_thousands_of_rows() -> None:
    progress = SynthProgress()
    for n in range(MOST_WORKERS + 7):
        progress(_block(n, worker=n))
    console, buffer = _screen(False)
    console.print(live_view(progress))
    assert "and 7 more" in buffer.getvalue()
    assert len(buffer.getvalue().splitlines()) == MOST_WORKERS + 4


def test_a_share_that_takes_from_others_ends_beyond_its_own() -> None:
    """Blocks of other shares count as done: more than all may be."""
    progress = SynthProgress()
    progress(SynthEvent("start", 5, 6))
    time.sleep(0.001)
    progress(SynthEvent("block", 7, 6, 40, 0, _block(0).record))
    assert "left" not in overall_line(progress)
    console, _ = _screen(False)
    console.print(live_view(progress))


def test_json_lines_have_every_event(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "logs" / "synth.jsonl"
    for _ in range(2):  # a second start adds to the file
        with showing_synthesis(Watch(quiet=True, log_json=path)) as monitor:
            for event in EVENTS:
                monitor(event)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == [event.kind for event in EVENTS] * 2
    block = lines[1]
    assert (block["block"], block["worker"], block["draws"], block["fates"]) == (0, 0, 32, FATES)
    assert block["problems"] == ["0/0: out of ink"]
    assert abs(block["time"] - time.time()) < 60
    assert lines[2]["kept"]["low"] < lines[2]["kept"]["share"] == 0.625 < lines[2]["kept"]["high"]
    assert "draws" not in lines[4]  # another driver's
    assert lines[5]["note"] == "interrupted"
    assert capfd.readouterr() == ("", "")


def test_json_on_standard_output_takes_the_tables_place(capfd: pytest.CaptureFixture[str]) -> None:
    with showing_synthesis(Watch(log_json=Path("-"))) as monitor:
        for event in EVENTS:
            monitor(event)
    out, err = capfd.readouterr()
    assert [json.loads(line)["event"] for line in out.splitlines()] == [event.kind for event in EVENTS]
    assert err == ""


def test_metrics_are_there_whole_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "synth.prom"
    with showing_synthesis(Watch(quiet=True, metrics=path)) as monitor:
        monitor(EVENTS[0])
        assert "sar_eval_synth_blocks_done 0\n" in path.read_text()
        monitor(EVENTS[-1])
    assert "sar_eval_synth_blocks_done 3\n" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_many_blocks_a_second_write_metrics_once_a_second(tmp_path: Path) -> None:
    path = tmp_path / "synth.prom"
    with showing_synthesis(Watch(quiet=True, metrics=path)) as monitor:
        monitor(EVENTS[0])
        written = path.stat().st_ino
        for n in range(50):
            monitor(_block(n))
        assert path.stat().st_ino == written


def test_a_log_that_cannot_be_written_ends_no_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As when a disk is full; it is said once of each."""
    log, path = tmp_path / "synth.jsonl", tmp_path / "metrics" / "synth.prom"
    log.write_bytes(b"\n" * 1_000_000)
    with showing_synthesis(Watch(quiet=True, log_json=log, metrics=path)) as monitor:
        monitor(EVENTS[0])
        path.unlink()
        path.mkdir()  # nothing can take its place
        with _files_no_longer_than(1_000_100):
            for event in (*EVENTS, SynthEvent("end", 6, 6)):
                monitor(event)
    notes = capfd.readouterr().err.splitlines()
    assert len(notes) == 2, notes
    assert all("the run goes on without it" in note for note in notes)


@contextmanager
def _files_no_longer_than(size: int) -> Iterator[None]:
    """Writing past it fails, as Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("watch", [Watch(log_json=Path("/tmp")), Watch(metrics=Path("/dev/null"))])
def test_a_file_that_is_none_is_refused(watch: Watch) -> None:
    with pytest.raises(BadInput, match="name a file"), showing_synthesis(watch):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (310, "5 min 10 s"), (7384, "2 h 3 min"), (183_600, "2 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rates() -> None:
    assert [rate_text(rate) for rate in (None, 0.01234, 12.345, 1234.5)] == ["-", "0.0123", "12.3", "1234"]
