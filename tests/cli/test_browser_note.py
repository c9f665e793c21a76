"""Where there is no browser, a test run says so once, with the command that installs one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import INSTALL, NO_BROWSER, skipped_note

ROOT = Path(__file__).parents[2]


def test_the_note_counts_the_skipped_tests() -> None:
    assert skipped_note([]) == skipped_note(["no CUDA device"]) == ""
    note = skipped_note([f"Skipped: {NO_BROWSER}", "no CUDA device", NO_BROWSER])
    assert note.startswith("2 tests")
    assert note.endswith(INSTALL)


@pytest.mark.slow
def test_a_run_without_a_browser_ends_with_the_note() -> None:
    words = ["-m", "pytest", "-q", "-m", "slow or not slow", "tests/e2e/test_report_questions.py"]
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if INSTALL in line]
    assert len(lines) == 1
    assert done.stdout.splitlines()[-2] == lines[0]
