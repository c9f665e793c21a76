"""One task of an array job: `python -m sar_eval.runtime.array_task SIGNAL WORDS...`, in the batch script.

Runs a command, passes the warning before the end of the time on to it as SIGNAL, and asks SLURM to queue
the task again if the command then ended unfinished (exit code 3). Bash's own `wait` now and then loses an
exit code when a signal arrives as the child ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

INCOMPLETE = 3  # exit code of a command that has more to do
WARNING, END = signal.SIGUSR1, signal.SIGTERM


class ArrayTask:
    """A command that is told of its time limit."""

    def __init__(self, stop_signal: signal.Signals, words: Sequence[str]) -> None:
        self.stop_signal, self.words = stop_signal, words
        self.warned = False
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: list[int] = []  # signals that came before the command was there

    def run(self) -> int:
        """Run to the end; returns the exit code, as a shell has it."""
        for number in (WARNING, END):
            signal.signal(number, self._pass_on)
        self._process = subprocess.Popen(self.words)
        while self._waiting:
            self._process.send_signal(self._waiting.pop(0))
        code = self._process.wait()
        if self.warned and code == INCOMPLETE:
            subprocess.run(["scontrol", "requeue", _own_name()], check=False)  # noqa: S607
        return 128 - code if code < 0 else code

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == WARNING and self.warned:
            return  # once is enough: a second one could end the command while it ends by itself
        self.warned |= number == WARNING
        passed = self.stop_signal if number == WARNING else END
        if self._process is None:
            self._waiting.append(passed)
        else:
            self._process.send_signal(passed)


def _own_name() -> str:
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


if __name__ == "__main__":
    sys.exit(ArrayTask(signal.Signals[f"SIG{sys.argv[1]}"], sys.argv[2:]).run())
