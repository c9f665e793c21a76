"""Processes that a worker starts: none of them outlives the worker, however it or its parent ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sar_eval.runtime.local import LocalRuntime
from sar_eval.runtime.slots import make_slots

MAIN = """
from pathlib import Path
from tests.unit.runtime.test_grandchildren import Parents, run
if __name__ == "__main__":
    run(Parents(Path({folder!r}), {how!r}), 1)
"""


@dataclass(frozen=True)
class Parents:
    """Workers that start a child, as an engine does, and then do as they are told for block 1."""

    folder: Path
    how: str

    @contextmanager
    def open(self, slot: object) -> Iterator[Callable[[int], int]]:
        if self.how.startswith("fork"):
            child = os.fork() or time.sleep(600)
        else:
            child = subprocess.Popen(["sleep", "600"]).pid
        (self.folder / f"child-{child}").touch()
        yield self._do

    def _do(self, block: int) -> int:
        if self.how.endswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how.endswith("hang"):
            (self.folder / f"worker-{os.getpid()}").touch()
            time.sleep(600)
        return block


def run(task: Parents, blocks: int) -> list[object]:
    return list(LocalRuntime(make_slots(1, [])).run(task, range(blocks)))


def _living(folder: Path) -> list[str]:
    pids = [path.name.partition("-")[2] for path in folder.glob("*-*")]
    states = [(pid, Path(f"/proc/{pid}/stat")) for pid in pids]
    return [pid for pid, stat in states if stat.exists() and stat.read_text().split()[2] not in "ZX"]


def _nobody_is_left(folder: Path, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while _living(folder) and time.monotonic() < end:
        time.sleep(0.02)
    return not _living(folder)


@pytest.mark.parametrize("how", ["spawn", "fork", "spawn-die", "fork-die"])
def test_children_end_with_their_worker(tmp_path: Path, how: str) -> None:
    [result] = run(Parents(tmp_path, how), 1)
    assert (result.error is None) == (not how.endswith("die"))
    assert list(tmp_path.glob("child-*"))
    assert _nobody_is_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("how", ["spawn-hang", "fork-hang"])
def test_children_end_with_the_run(tmp_path: Path, how: str, number: int) -> None:
    (tmp_path / "main.py").write_text(MAIN.format(folder=str(tmp_path), how=how))
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py"], env=environment)
    while not list(tmp_path.glob("worker-*")):
        assert parent.poll() is None
        time.sleep(0.02)
    assert len(_living(tmp_path)) == 2
    parent.send_signal(number)
    parent.wait()
    assert _nobody_is_left(tmp_path)
