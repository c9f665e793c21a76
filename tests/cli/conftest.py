"""Fixtures of tests of the command line."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command_line import Run

from sar_eval.cli import main


@pytest.fixture
def in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run the command line in `tmp_path`, without the second that a process of its own takes."""

    def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["sar-eval", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return subprocess.CompletedProcess(
            words, code if isinstance(code, int) else 0, *capsys.readouterr()
        )

    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)  # `main` sets its own
    yield run
    signal.signal(signal.SIGTERM, before)
