"""A command that is forked from a process with its imports behind it is as one that was started anew."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sar_eval import __version__
from tests.warm_command import WarmCommand, is_for_a_new_process

SIZE = {"COLUMNS": "100"}  # so that help is as wide in both


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["run", "shapes", "--ckpt", "nothing-here"],
        ["list", "--json"],
        ["run", "--help"],
        ["run", "--no-such-flag"],
    ],
)
def test_it_prints_and_ends_as_a_new_process(words: list[str], warm: WarmCommand, tmp_path: Path) -> None:
    command, environment = [sys.executable, "-m", "sar_eval", *words], os.environ | SIZE
    new = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    forked = warm.completed(words, 120, environment, tmp_path)
    assert forked.stderr == new.stderr
    assert forked.stdout == new.stdout
    assert forked.returncode == new.returncode


def test_it_has_the_folder_and_the_variables_that_it_is_given(warm: WarmCommand, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a red ring\n")
    words = ["generate", "two.txt", "--ckpt", "demo:sft", "-n", "1", "--engine", "no-such-engine"]
    assert "no-such-engine" in warm.completed(words, 120, cwd=tmp_path).stderr
    offline = os.environ | {"SAR_EVAL_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = warm.completed(["ckpt", "info", "org/model"], 120, offline, tmp_path)
    assert (done.returncode, "org/model" in done.stderr) == (2, True)


def test_a_command_that_takes_too_long_is_ended(warm: WarmCommand, tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        warm.completed(["run", "shapes", "--ckpt", "demo:sft", "-q", "--out", tmp_path / "run"], 0.05)


@pytest.mark.parametrize(
    ("changed", "new"),
    [({}, False), ({"SAR_EVAL_CACHE": "x"}, False), ({"PYTHONPATH": "x"}, True), ({"LC_ALL": "C.x"}, True)],
)
def test_what_is_read_at_the_start_needs_a_new_process(changed: dict[str, str], new: bool) -> None:
    assert is_for_a_new_process(os.environ | changed) is new
    assert not is_for_a_new_process(None)


def test_a_command_that_nobody_waits_for_is_killed_and_its_reply_is_no_others(tmp_path: Path) -> None:
    """As where a test's time limit is met while it waits."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with WarmCommand() as own:
            assert own.completed(["--version"], 240).returncode == 0
            interrupt = threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR1))
            interrupt.start()
            with pytest.raises(TimeoutError):
                own.completed(["run", "shapes", "--ckpt", "demo:sft", "--out", tmp_path / "run"], 240)
            done = own.completed(["--version"], 240)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (done.returncode, done.stdout.strip()) == (0, f"sar-eval {__version__}")
