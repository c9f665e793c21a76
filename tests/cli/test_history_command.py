"""`sar-eval history` on the command line: the table, JSON, Markdown, exit codes, hostile names."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from command_line import Run, refused
from rich.console import Console

from sar_eval.cli.history_table import history_table
from sar_eval.histories import Change, Curve, Entry, LevelChange, Series
from sar_eval.types import Metric
from tests.history_folders import make_suite, write_run, write_training


def _series(names: list[str], scale: int) -> Series:
    metric = Metric("overall", 0.9996 * scale, 0.97881 * scale, 1.0 * scale, 9, scale)
    change = Change(value=-0.12345 * scale, low=-0.23456 * scale, high=-0.1 * scale)
    level = LevelChange(
        first=0, at=1, end=2, value=-0.1 * scale, low=-0.2 * scale, high=-0.05 * scale, p=0.01
    )
    entries = tuple(
        Entry(
            checkpoint=name,
            label=name,
            path=name,
            step=10_000_000 + n,
            date="2026-11-26T07:02",
            seed=0,
            level=n,
        )
        for n, name in enumerate(names)
    )
    curve = Curve(
        measure="overall",
        scale=scale,
        figures=(metric,) * len(names),
        changes=(None, *(change,) * (len(names) - 1)),
        level_changes=(level,),
        means=((0, 1, 0.5), (1, 2, 0.5)),
    )
    return Series(benchmark="geneval", differs="", entries=entries, curves=(curve,), order="step")


@pytest.mark.parametrize("scale", [1, 100])
def test_the_table_fits_80_columns_with_complete_figures(scale: int) -> None:
    series = _series(["a-very-long-name-of-a-checkpoint-2000", "b\x1b[31m" + "x" * 300], scale)
    buffer = io.StringIO()
    table = history_table(series, series.curves[0], on_terminal=True)
    Console(file=buffer, width=80, color_system=None).print(table)
    lines = buffer.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in buffer.getvalue()
    assert "\x1b" not in buffer.getvalue()
    assert "int-2000" in lines[3]
    figures = ["-0.123", "-0.235", "-0.100"] if scale == 1 else ["-12.35", "-23.46", "-10.00"]
    assert lines[4].split()[-5:] == [*figures, "*", "2026-11-26"]


def test_prints_plain_text_and_writes_the_page(in_this_process: Run, tmp_path: Path) -> None:
    write_training(tmp_path / "runs", [0.4] * 3 + [0.7] * 3, per_task=12)
    write_run(tmp_path / "runs" / "base", make_suite(12), 0.5, checkpoint="/x/base")
    done = in_this_process(["history", "runs", "--markdown", "history.md"])
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["shapes", "overall"]
    assert lines[1].split()[:3] == ["step", "checkpoint", "score"]
    assert [line.split()[0] for line in lines[2:8]] == [f"{n}000" for n in range(1, 7)]
    assert [" * " in line for line in lines[2:8]] == [False, False, False, True, False, False]
    assert lines[8].startswith("* from 4000 on: overall +0.")
    assert "left out: runs/base: no training step in the name '/x/base'" in done.stdout
    assert lines[-1] == "page    runs/history.html"
    assert (tmp_path / "runs" / "history.html").read_text().startswith("<!doctype html>")
    table = (tmp_path / "history.md").read_text().splitlines()
    assert table[0] == "### shapes: overall"
    assert all(line.count(" | ") == 7 for line in table[2:10])
    assert table[11].startswith("- \\* from 4000 on")


def test_json_has_every_number(in_this_process: Run, tmp_path: Path) -> None:
    write_training(tmp_path / "runs", [0.4, 0.8], per_task=12)
    done = in_this_process(["history", "runs", "--json", "--out", "page.html", "--measure", "task/colors"])
    found = json.loads(done.stdout)
    (series,) = found["series"]
    curve = series["curves"][0]
    assert curve["measure"] == found["measure"] == "task/colors"
    assert [entry["step"] for entry in series["entries"]] == [1000, 2000]
    difference = curve["figures"][1]["value"] - curve["figures"][0]["value"]
    assert curve["changes"][1]["value"] == pytest.approx(difference)
    assert curve["level_changes"][0]["value"] == pytest.approx(difference)
    assert curve["level_changes"][0]["p"] <= 0.05
    assert found["page"] == "page.html"


def test_names_of_runs_are_text_everywhere(in_this_process: Run, tmp_path: Path) -> None:
    name = "/x/\x1b[2J|**b**<i>\n[red]-step-1"
    write_run(tmp_path / "runs" / "a", make_suite(3), 0.5, checkpoint=name, benchmark="<b>|\x1b[1m")
    done = in_this_process(["history", "runs", "--markdown", "history.md"])
    assert "\x1b" not in done.stdout
    assert "\\x1b[2J|**b**<i>\\n[red]-step-1" in done.stdout
    row = (tmp_path / "history.md").read_text().splitlines()[4]
    assert "\\*\\*b\\*\\*&lt;i>\\\\n\\[red\\]" in row
    assert row.replace("\\|", "").count("|") == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent"], "is no folder"),
        (["."], "no runs below"),
        (["runs", "--order", "sideways"], "--order is 'sideways'"),
        (["runs", "--measure", "task/absent"], "--measure is 'task/absent'"),
        (["runs", "--benchmark", "dpg"], "no runs of 'dpg'"),
        (["runs", "--order", "a\0"], "NUL"),
    ],
)
def test_bad_input_says_what_is_wrong(
    in_this_process: Run, tmp_path: Path, words: list[str], message: str
) -> None:
    if words != ["."]:
        write_training(tmp_path / "runs", [0.5], per_task=3)
    refused(in_this_process(["history", *words]), message)
