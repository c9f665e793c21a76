"""Text of files, servers and names never acts on the terminal, and is never taken for markup."""

import io
import json
import re
from pathlib import Path

import pytest
import typer
from rich.console import Console

from sar_eval import cli
from sar_eval.cli.progress import LineProgress, LiveProgress, bars, print_summary, score_table
from sar_eval.cli.terminal import one_line, printable
from sar_eval.errors import BadInput
from sar_eval.runtime.progress import ProgressEvent
from sar_eval.types import Metric, Summary

TITLE = "\x1b]0;owned\x07"  # sets the window's title
NAMES = ["ck[/x]", "[bold]b[/bold]", "[link=x]y", "a[", "back\\[slash\\", ":smile:", "[/]", "\\"]
HOSTILE = [
    TITLE,
    "\x1b[2J",
    "\x9b31m",
    "a\rb",
    "\u202eevil",
    "\u2066x\u2069",
    "\ud800",
    "\x00",
    "\x08",
    "\u2028",
]


def summary(benchmark: str, checkpoint: str, metric: str = "task/x") -> Summary:
    metrics = (Metric(metric, 0.5, 0.4, 0.6, 12),)
    return Summary("d", benchmark, checkpoint, {}, 12, 12, 11, 0, metrics, (f"lost {checkpoint}",), {})


def acting(text: str) -> list[str]:
    """Characters that a terminal would act on."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_acts_on_is_escaped(text: str) -> None:
    shown = printable(f"a{text}b")
    assert not acting(shown)
    assert shown.isascii()
    assert shown.encode()


def test_other_text_stays() -> None:
    text = "ein Bär, 猫, عربى, 👩‍👩‍👧, tab\tand\nline [x] \\"
    assert printable(text) == text
    assert one_line("a\nb") == "a\\nb"


@pytest.mark.parametrize("name", NAMES)
def test_square_brackets_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary(name, name, f"task/{name}"), Path(f"runs/{name}"), Path(name))
    shown = capsys.readouterr().out
    flat = "".join(shown.split())
    assert flat.count(name) >= 4, shown  # twice in the title, run, report; the row cuts at a slash


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_a_summary_do_not_act(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summary(name, name, f"task/{name}"), Path(f"runs/{name}"), Path(name))
    assert not acting(capsys.readouterr().out)


@pytest.mark.parametrize("name", [*NAMES, *HOSTILE])
def test_notes_of_a_stage_do_not_act(name: str) -> None:
    buffer = io.StringIO()
    LineProgress(Console(file=buffer, width=200))(
        ProgressEvent("judge", 1, 2, worker=0, note=f"block {name}")
    )
    assert f"block {printable(name)}" in buffer.getvalue()
    assert not acting(buffer.getvalue())


def test_notes_beside_live_bars_do_not_act() -> None:
    buffer = io.StringIO()
    with bars(Console(file=buffer, force_terminal=True, width=200, color_system=None)) as progress:
        LiveProgress(progress)(ProgressEvent("judge", 1, 2, worker=0, note=f"block {TITLE}[/x]"))
    assert "block \\x1b]0;owned\\x07[/x]" in buffer.getvalue()
    assert TITLE not in buffer.getvalue()


def test_the_title_is_shown_with_a_console_that_takes_markup() -> None:
    buffer = io.StringIO()
    Console(file=buffer, width=80).print(score_table(summary("[/x]", "[bold]")))
    assert "[/x]  [bold]" in buffer.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_error_messages_do_not_act(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise BadInput(f"no file {name}")

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(refuse)
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr("sys.argv", ["sar-eval"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    shown = capsys.readouterr().err
    assert printable(f"error: no file {name}") in shown
    assert not acting(shown)


def test_tags_of_a_suite_do_not_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(json.dumps({"text": "a cat", "tag": f"{TITLE}\nerror: x"}) + "\n")
    monkeypatch.setattr("sys.argv", ["sar-eval", "prompts", "check", str(path)])
    with pytest.raises(SystemExit):
        cli.main()
    done = capsys.readouterr()
    shown = done.out + done.err
    assert not acting(shown)
    assert "\nerror: x" not in done.out


def test_only_the_terminal_file_prints() -> None:
    """JSON may be printed as it is: it escapes such characters itself."""
    raw = re.compile(r"typer\.echo\((?!json\.dumps\()|\bConsole\([^)]|(?<![.\w])print\(")
    lines = [
        f"{path.name}: {line.strip()}"
        for path in Path(cli.__file__).parent.glob("*.py")
        if path.name != "terminal.py"
        for line in path.read_text().splitlines()
        if raw.search(line) and "__version__" not in line
    ]
    assert lines == [], "use say() of sar_eval/cli/terminal.py"
