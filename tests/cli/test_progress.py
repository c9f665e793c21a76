"""What the terminal shows while a stage runs."""

import io

import pytest
from rich.console import Console

from sar_eval.cli.progress import LineProgress, LiveProgress, bars, score_table
from sar_eval.runtime.progress import ProgressEvent
from sar_eval.types import Metric, Summary

EVENTS = [
    ProgressEvent("generate", 8, 64),
    ProgressEvent("generate", 16, 64, worker=0, added=8),
    ProgressEvent(
        "generate",
        24,
        64,
        failed=8,
        worker=1,
        added=8,
        note="block 2: given up after 3 tries: [red]x[/red]",
    ),
    ProgressEvent("generate", 64, 64, failed=8, worker=0, added=40),
]


def _screen(width: int = 120, terminal: bool = True) -> tuple[Console, io.StringIO]:
    buffer = io.StringIO()
    return Console(file=buffer, force_terminal=terminal, width=width, color_system=None), buffer


def test_live_bars_show_total_and_workers() -> None:
    console, buffer = _screen()
    with bars(console) as progress:
        watch = LiveProgress(progress)
        for event in EVENTS:
            watch(event)
        progress.refresh()
    text = buffer.getvalue()
    assert "64/64" in text
    assert "worker 0" in text
    assert "worker 1" in text
    assert "images/s" in text
    assert "8 failed" in text
    assert "[red]x[/red]" in text


def test_lines_in_a_log_have_no_codes() -> None:
    console, buffer = _screen(terminal=False)
    watch = LineProgress(console)
    for event in EVENTS:
        watch(event)
    lines = buffer.getvalue().splitlines()
    assert lines[0] == "generate: 8 of 64 images are there already"
    assert lines[1].startswith("block 2: given up")
    assert lines[-1].startswith("generate: 64/64 images")
    assert lines[-1].endswith("8 failed")
    assert "\x1b" not in buffer.getvalue()


@pytest.mark.parametrize("value", [0.5, None])
def test_the_table_has_scores_and_intervals(value: float | None) -> None:
    metric = Metric("task/two_object", value, value and 0.4, value and 0.6, 12)
    summary = Summary("d", "shapes", "demo:sft", {}, 12, 12, 12, 0, (metric,), (), {})
    console, buffer = _screen(terminal=False)
    console.print(score_table(summary))
    assert "two object" in buffer.getvalue()
    assert ("0.400 to 0.600" in buffer.getvalue()) == (value is not None)
