"""What a worker process inherits of its parent's signals."""

import signal
import subprocess
import sys

import pytest

# In a process of its own: the first worker of a process also starts multiprocessing's resource tracker.
START = """
from pathlib import Path
from sar_eval.runtime.local import ProcessCrew
from sar_eval.runtime.slots import WorkerSlot
crew = ProcessCrew(None)
worker = crew.start(WorkerSlot(0))
print(Path(f"/proc/{worker.process.pid}/status").read_text())
crew.stop([worker])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_is_left_to_the_parent_from_the_first_moment() -> None:
    """Else a worker that is still loading modules dies of it with a traceback on the terminal."""
    done = subprocess.run(
        [sys.executable, "-c", START], capture_output=True, text=True, check=True, timeout=60
    )
    (mask,) = [line for line in done.stdout.splitlines() if line.startswith("SigBlk:")]
    assert int(mask.split()[1], 16) >> (signal.SIGINT - 1) & 1
