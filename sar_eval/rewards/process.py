"""A judge in a process of its own: it may hang, crash or print, and the trainer goes on.

This is the trainer's end; `rewards.worker` is the worker's. The worker is a fresh interpreter,
neither a fork nor `multiprocessing`'s spawn: that would import the trainer's main module again (and with
it torch, and in a script without `if __name__ == "__main__"` the whole training). Verdicts come one by
one, so that those given before a crash count, and a time limit is one of silence.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from sar_eval.errors import BadInput, SarEvalError
from sar_eval.machine import has_exited
from sar_eval.protocols import WORKERS_PER_DEVICE
from sar_eval.rewards.worker import POLL_S, Item, JudgeCall
from sar_eval.types import Generation, Verdict

START_TIMEOUT_S = 1800.0  # a judge that loads its weights from a slow disk
CLOSE_TIMEOUT_S = 10.0  # for an idle judge to free its device
GIVE_UP_AFTER = 2  # items in a row that fail alone: then it is the judge, and not the items
# What a launcher tells the ranks of the trainer: a judge that reads it would wait for the other ranks.
LAUNCHER_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_")
LAUNCHER_VARIABLES = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
)
COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from sar_eval.rewards.worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)


class WorkerLost(Exception):
    """The worker died, or said nothing for too long; the message says which."""


class RewardProcess:
    """The trainer's end. One thread at a time may use it; `close` and `kill` may come from another."""

    def __init__(self, call: JudgeCall) -> None:
        self.call = call
        self.version = ""  # of the judge, once it is ready
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False
        self._ending = threading.Lock()  # a process is signalled before it is reaped, never after

    def launch(self) -> None:
        """Start the process; its judge loads meanwhile (see `wait_until_ready`).

        Raises:
            BadInput: there is no such card, or no process can be started.
        """
        environment = _environment(self.call)
        self._connection, theirs = Pipe()
        number = theirs.fileno()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(number), str(os.getpid()), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # a judge may print: standard output is the trainer's
                pass_fds=[number],
                env=environment,
                start_new_session=True,  # Ctrl-C is the trainer's, and a kill takes what the judge started
            )
        except OSError as error:
            self._connection.close()
            raise BadInput(f"its process cannot be started: {error}") from error
        finally:
            theirs.close()
        if self._closed:  # meanwhile, by the main thread
            self.kill()

    def wait_until_ready(self) -> None:
        """Wait for the judge.

        Raises:
            BadInput: it cannot start; the message is its own.
        """
        try:
            with self._deadline(START_TIMEOUT_S):
                self._send(self.call)
            kind, content = self._receive(START_TIMEOUT_S)
        except WorkerLost as error:
            self.kill()
            raise BadInput(f"the worker did not start: {error}") from error
        if kind != "ready":
            self.kill()
            raise BadInput(content)
        self.version = content

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict for each item, in their order; whatever the judge does, nothing is raised.

        What has no verdict when the judge raises, dies or is silent is judged once more, each item alone:
        so one picture that breaks the judge costs one reward.
        """
        found = {
            n: self._error(g, f"not drawn: {g.error}") for n, (_, g) in enumerate(items) if not g.image
        }
        reason = self._ask(items, [n for n in range(len(items)) if n not in found], found)
        failures = 0
        for number in [n for n in range(len(items)) if n not in found]:
            if failures < GIVE_UP_AFTER:
                reason = self._ask(items, [number], found)
                failures = failures + 1 if reason else 0
            found.setdefault(number, self._error(items[number][1], reason))
        return [found[n] for n in range(len(items))]

    def close(self) -> None:
        """Let an idle judge free its device, then end what is left of it."""
        self._closed = True
        # One that still loads its weights would not look at the pipe.
        if self.version and self._process is not None and self._connection is not None:
            with suppress(OSError):
                self._connection.send(None)
            _wait_for_exit(self._process, CLOSE_TIMEOUT_S)
        self.kill()

    def interrupt(self) -> None:
        """End a judge in the middle of its work: whoever waits gets errors, and starts it no more."""
        self._closed = True
        self._kill_group()

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        self._kill_group()
        with self._ending:
            if self._process is not None:
                self._process.wait()
            if self._connection is not None:
                self._connection.close()
            self._process = self._connection = None

    def _kill_group(self) -> None:
        with self._ending, suppress(ProcessLookupError, PermissionError):  # nobody is left
            if self._process is not None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _ask(self, items: Sequence[Item], numbers: Sequence[int], found: dict[int, Verdict]) -> str:
        """Put the verdicts of some items into `found`; returns why not all have one, "" if they do."""
        if not numbers:
            return ""
        try:
            self._restart()
            with self._deadline(self.call.timeout_s):
                self._send([items[number] for number in numbers])
            while True:
                kind, content = self._receive(self.call.timeout_s)
                if kind == "done":
                    return str(content)
                if kind == "lost":
                    self.kill()
                    return str(content)
                position, verdict = content
                found[numbers[position]] = verdict
        except WorkerLost as error:
            self.kill()
            return str(error)
        except SarEvalError as error:
            return f"its worker ended and cannot start again: {error}"

    def _restart(self) -> None:
        """Start the worker again if it was lost."""
        if self._closed:
            raise WorkerLost("the run ends")
        if self._process is not None and has_exited(self._process.pid):
            self.kill()  # it died since the last items
        if self._process is None:
            self.launch()
            self.wait_until_ready()

    def _error(self, generation: Generation, why: str) -> Verdict:
        return Verdict(generation.key, self.call.judge, self.version, error=why)

    def _send(self, message: Any) -> None:
        if self._connection is None:
            raise WorkerLost("it was ended")
        try:
            self._connection.send(message)
        except OSError as error:
            raise WorkerLost(self._exit_reason()) from error

    def _receive(self, timeout_s: float) -> Any:
        connection, process = self._connection, self._process
        if connection is None or process is None:
            raise WorkerLost("it was ended")
        end = time.monotonic() + timeout_s
        try:
            while not connection.poll(min(POLL_S, timeout_s)):
                # A child of the judge's may hold the pipe open after the judge's own death.
                if time.monotonic() > end or has_exited(process.pid):
                    break
            if connection.poll():
                return connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerLost(self._exit_reason()) from error
        raise WorkerLost(
            self._exit_reason()
            if has_exited(process.pid)
            else f"the judge said nothing for {timeout_s:g} s (timeout_s)"
        )

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        """Kill the worker if it does not take a message: a full pipe would block for ever."""
        timer = threading.Timer(seconds, self._kill_group)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _exit_reason(self) -> str:
        """How the worker ended, in words."""
        process = self._process
        if process is None or not _wait_for_exit(process, POLL_S):
            return "the judge's worker closed its pipe"
        status = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        code = 0 if status is None else status.si_status
        if status is not None and status.si_code != os.CLD_EXITED:
            known = code in set(signal.Signals)
            return f"the judge's worker was ended by {signal.Signals(code).name if known else code}"
        return f"the judge's worker ended with exit code {code}"


def _environment(call: JudgeCall) -> dict[str, str]:
    """The trainer's environment, less what makes a process one of its ranks.

    Raises:
        BadInput: the call names a card that is not there.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith(LAUNCHER_PREFIXES)
    }
    kept[WORKERS_PER_DEVICE] = str(call.sharing)
    kind, _, card = call.device.partition(":")
    if kind == "cpu":
        kept["OMP_NUM_THREADS"] = "1"  # engine, trainer and judges take turns on the same cores
    else:
        # The judge sees its own card only: no library of its can put a context on another.
        number = int(card or os.environ.get("LOCAL_RANK", "0"))
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        cards = None if shown is None else [name for name in shown.split(",") if name]
        if cards is not None and number >= len(cards):
            raise BadInput(f"there is no card {number}: CUDA_VISIBLE_DEVICES is {shown!r}")
        kept["CUDA_VISIBLE_DEVICES"] = str(number) if cards is None else cards[number]
    return kept


def _wait_for_exit(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not has_exited(process.pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
