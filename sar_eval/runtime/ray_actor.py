"""What runs in a Ray actor: it keeps a worker process beside it, and passes on what is said."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sar_eval
from sar_eval.errors import BadInput, SarEvalError
from sar_eval.runtime.local import ProcessCrew, ProcessWorker
from sar_eval.runtime.queue import Message
from sar_eval.runtime.slots import WorkerSlot


@dataclass(frozen=True, slots=True)
class Driver:
    """What a worker elsewhere takes over from the process that started it, as a child would."""

    version: str
    host: str
    folder: str
    path: tuple[str, ...]

    def adopt(self) -> None:
        """Work in the driver's folder, where it is there, and import what the driver can.

        Raises:
            BadInput: this machine has another version of sar-eval.
        """
        if self.version != sar_eval.__version__:
            raise BadInput(f"sar-eval is {sar_eval.__version__} here, and {self.version} on {self.host}")
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        sys.path += [entry for entry in self.path if entry and entry not in sys.path]


class WorkerActor:
    """Lives in a process of Ray's: keeps one worker process beside it, and passes on what is said.

    The worker is not the actor's own process: so its variables are set before its first import, nothing of
    Ray's computes beside it, its last words are known when it is killed, and what it leaves is killed.
    """

    def __init__(self, driver: Driver, slot: WorkerSlot) -> None:
        self.driver, self.slot = driver, slot
        self.crew: ProcessCrew | None = None
        self.worker: ProcessWorker | None = None

    def begin(self, task: bytes) -> Message:
        """Start the worker process; returns its first message."""
        try:
            self.driver.adopt()
            self.crew = ProcessCrew(pickle.loads(task))  # noqa: S301 - from our own driver
        except SarEvalError as error:
            return self._naming_host("fatal", error)
        with _without_main():
            self.worker = self.crew.start(self.slot)
        return self.exchange([])

    def exchange(self, blocks: Sequence[int]) -> Message:
        """Give the worker its next blocks, and wait for its next message."""
        crew, worker = self._open()
        crew.send(worker, blocks)
        [(_, (kind, content))] = crew.receive([worker])
        return self._naming_host(kind, content)

    def end(self) -> None:
        """Wait until the worker, which holds no block, has released its device and ended."""
        crew, worker = self._open()
        crew.end(worker)

    def stop(self) -> None:
        """End the worker whatever it does."""
        crew, worker = self._open()
        crew.stop([worker])

    def _open(self) -> tuple[ProcessCrew, ProcessWorker]:
        if self.crew is None or self.worker is None:
            raise RuntimeError("this worker was not begun")
        return self.crew, self.worker

    def _naming_host(self, kind: str, content: Any) -> Message:
        """A message, with the machine's name where an error may be this machine's alone."""
        host = socket.gethostname()
        if isinstance(content, SarEvalError) and host != self.driver.host:
            return kind, type(content)(f"{content} (on {host})")
        return kind, content


@contextmanager
def _without_main() -> Iterator[None]:
    """A child imports its parent's main module; that is Ray's here, and would load Ray again."""
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file
