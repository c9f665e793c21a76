"""Whatever happens, a command ends in one line and an exit code that is not a failed gate's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from sar_eval.cli import last_handler
from sar_eval.errors import BadInput, GateFailed, Incomplete

RUN = ("run", "shapes", "--ckpt", "demo:sft", "-n", "1")
HEAD = """
from sar_eval.benchmarks.shapes import BENCHMARK as Fold
from sar_eval.judges.shapes import JUDGE as Shapes
"""
NOISY = """
import os
class X(Shapes):
    def judge(self, items):
        os.write(1, b"a" * 9)
        os.write(2, b"a" * 9)
        return super().judge(items)
"""


def _too_deep() -> None:
    _too_deep()


def _raise(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def _run(command: Callable[[], None]) -> int:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    return last_handler.run(lambda: app([]))


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (_raise(ZeroDivisionError("one\ntwo")), 70, "unforeseen ZeroDivisionError: one two (at "),
        (_raise(KeyError("x")), 70, "Please report this line"),
        (_too_deep, 70, "unforeseen RecursionError"),
        (_raise(EOFError()), 70, "unforeseen EOFError"),
        (_raise(BrokenPipeError(32, "Broken pipe")), 70, "unforeseen BrokenPipeError"),
        (_raise(MemoryError()), 3, "out of memory: "),
        (_raise(OSError(24, "Too many open files", "x.png")), 3, "Too many open files (x.png); what is"),
        (_raise(OSError(28, "No space left on device")), 3, "No space left on device; what is stored"),
        (_raise(KeyboardInterrupt()), 3, "interrupted; what is stored stays"),
        (_raise(BadInput("no such thing")), 2, "error: no such thing"),
        (_raise(Incomplete("half of it")), 3, "error: half of it"),
        (_raise(GateFailed("worse")), 1, "error: worse"),
    ],
)
def test_every_exception_is_one_line_with_a_code(
    capsys: pytest.CaptureFixture[str], command: Callable[[], None], code: int, message: str
) -> None:
    assert _run(command) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("error: ") == 1
    assert told.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in told


def test_the_traceback_is_there_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAR_EVAL_DEBUG", "1")
    assert _run(_raise(KeyError("x"))) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "option", "message"),
    [
        ("def f(:\n", "judge", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(0)\n", "judge", "cannot be imported: SystemExit: 0"),
        ("raise KeyboardInterrupt\n", "judge", "interrupted"),
        ("class X:\n def __init__(self, **o): raise KeyError('deep')\n", "judge", "KeyError: 'deep'"),
        ("class X:\n def __init__(self, **o): raise SystemExit(0)\n", "judge", "cannot be made with"),
        ("class X:\n def __init__(self, **o): pass\n", "judge", "has no `version`"),
        ("class X(Shapes):\n speed_options = 3\n", "judge", "does not say what it is: TypeError"),
        ("X = 3\n", "judge", "does not take the options"),
        pytest.param(
            "class X(Fold):\n def fold(self, *a): return 1 / 0\n",
            "fold",
            "failed: ZeroDivisionError",
            marks=pytest.mark.slow,
        ),
        (
            "class X(Shapes):\n def __enter__(self): raise OSError('no model')\n",
            "judge",
            "OSError: no model",
        ),
    ],
)
@pytest.mark.slow
def test_additions_that_break_are_named(
    sar_eval, tmp_path: Path, suite: Path, code: str, option: str, message: str
) -> None:
    (tmp_path / "bad.py").write_text(HEAD + code)
    recipe = f"suite = {str(suite)!r}\nfold = 'shapes'\njudge = 'shapes'\n".replace(
        f"{option} = 'shapes'", f"{option} = '{tmp_path}/bad.py:X'"
    )
    (tmp_path / "mine.toml").write_text(recipe)
    done = sar_eval("run", tmp_path / "mine.toml", *RUN[2:], "--out", tmp_path / "run", "-q")
    assert done.returncode == (3 if message == "interrupted" else 2), done.stderr
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("device=cpu", "'device' is no option of judge 'shapes': say --devices"),
        ("x=1979-05-27", "--judge-option x is a date (1979-05-27)"),
        ("threshold=nan", "the number nan is not finite"),
    ],
)
@pytest.mark.slow
def test_options_that_no_run_can_have(
    sar_eval, tmp_path: Path, suite: Path, option: str, message: str
) -> None:
    done = sar_eval(*RUN, "--suite", suite, "--judge-option", option, "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture
def stored(sar_eval, tmp_path: Path, suite: Path) -> list[str]:
    """The command that summarises a finished run."""
    assert sar_eval(*RUN, "--suite", suite, "--out", tmp_path / "run", "-q").returncode == 0
    return [sys.executable, "-m", "sar_eval", "summarize", str(tmp_path / "run")]


@pytest.mark.slow
def test_output_that_cannot_be_written(stored: list[str]) -> None:
    def code(redirected: str) -> tuple[int, str]:
        done = subprocess.run(
            ["/bin/bash", "-c", f'set -o pipefail; "$@" {redirected}', "-", *stored],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    full, told = code(">/dev/full")
    assert full == 3
    assert "standard output could not be written (No space left on device)" in told
    assert code("| head -1") == (0, "")
    assert code("| true") == (0, "")
    assert code("2>/dev/full") == (0, "")
    assert code(">&- 2>&-") == (0, "")


@pytest.mark.slow
def test_a_run_without_streams_stores_no_message_in_its_files(tmp_path: Path, suite: Path) -> None:
    """A closed descriptor would become a part's; the worker's messages would then be written into it."""
    (tmp_path / "noisy.py").write_text(HEAD + NOISY)
    words = [sys.executable, "-m", "sar_eval", *RUN, "--suite", suite, "--out", tmp_path / "run", "-q"]
    words += ["--judge", f"{tmp_path}/noisy.py:X"]
    script = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(["/bin/sh", "-c", script, "-", *map(str, words)], check=False)
    assert done.returncode == 0
    for path in (path for path in (tmp_path / "run").rglob("*") if path.is_file()):
        assert b"aaaaaaaaa" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("number", "delay"),
    [(signal.SIGINT, 0.08), (signal.SIGINT, 0.3), (signal.SIGTERM, 0.3), (signal.SIGHUP, 0.5)],
)
def test_a_signal_while_starting_is_one_line_at_most(
    tmp_path: Path, suite: Path, number: int, delay: float
) -> None:
    words = [sys.executable, "-m", "sar_eval", *RUN, "--suite", suite, "--out", tmp_path / "run", "-q"]
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    for _ in range(3):
        os.kill(process.pid, number)
    _, told = process.communicate(timeout=30)
    if process.returncode == 3:
        assert "interrupted" in told
        assert told.count("\n") == 1
    else:  # the system or Python itself ended the process before a line of ours was read
        assert process.returncode in (-number, 1)
        assert "sar_eval" not in told


@pytest.mark.slow
def test_nohup_is_obeyed(tmp_path: Path, suite: Path) -> None:
    words = [sys.executable, "-m", "sar_eval", *RUN, "--suite", suite, "--out", tmp_path / "run", "-q"]
    process = subprocess.Popen(
        ["nohup", *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    time.sleep(0.6)
    os.kill(process.pid, signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
