"""Workers that are processes on this machine."""

from __future__ import annotations

import math
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from sar_eval.errors import DeviceLost, SarEvalError
from sar_eval.machine import has_exited
from sar_eval.runtime.queue import BlockQueue, Message, Worker, run_queue
from sar_eval.runtime.runtimes import BlockResult, Task
from sar_eval.runtime.slots import WorkerSlot, sharing_memory
from sar_eval.runtime.streams import safe_streams, use_error_stream_for_output

POLL_S = 0.005  # how often a worker with a pending result looks whether that is done
STOP_TIMEOUT_S = 2.0  # how long a worker may take to end after SIGTERM
CLOSE_TIMEOUT_S = 30.0  # how long it may take to release its device when the work is done
HANDLED_BY_PARENT = (signal.SIGINT, signal.SIGHUP)  # they reach the whole group of the terminal


@dataclass(slots=True, eq=False)
class ProcessWorker(Worker):
    """A worker process, and our end of the pipe to it."""

    process: BaseProcess = field(kw_only=True)
    connection: Connection = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class LocalRuntime:
    """Worker processes on this machine, one for each slot."""

    slots: Sequence[WorkerSlot]

    def run(self, task: Task, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """Run every block once; see `Runtime.run`."""
        queue = BlockQueue(blocks)
        used = sharing_memory(self.slots[: queue.ahead(len(self.slots))])
        return run_queue(queue, used, ProcessCrew(task))


class ProcessCrew:
    """Starts worker processes that run a task, and speaks to them (see `runtime.queue.Crew`)."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def start(self, slot: WorkerSlot) -> ProcessWorker:
        """Start a worker process."""
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker_main, args=(self.task, theirs, slot))
        resource_tracker.ensure_running()  # started later, it would unblock SIGINT
        variables = {"OMP_NUM_THREADS": str(slot.threads), **slot.environment}
        with _environment(variables), _blocking_interrupts():
            process.start()
        theirs.close()
        return ProcessWorker(slot, process=process, connection=ours)

    def receive(self, workers: Sequence[ProcessWorker]) -> Iterator[tuple[ProcessWorker, Message]]:
        """One message, or the exit, of each worker that has one; waits for a first one."""
        by_connection = {worker.connection: worker for worker in workers}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                yield worker, worker.connection.recv()
            except (EOFError, OSError):  # OSError: killed in the middle of a message
                yield worker, ("died", _exit_reason(worker))

    def send(self, worker: ProcessWorker, blocks: Sequence[int]) -> None:
        """Give a worker its next blocks."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: the next recv says so
            for block in blocks:
                worker.connection.send(block)

    def end(self, worker: ProcessWorker) -> None:
        """Wait until a worker without blocks has released its device and ended."""
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(None)
        _end(worker, CLOSE_TIMEOUT_S)
        self.stop([worker])

    def stop(self, workers: Sequence[ProcessWorker]) -> None:
        """End workers, by force if they do not within a moment."""
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            if not _end(worker, STOP_TIMEOUT_S):
                worker.process.kill()
                _end(worker, math.inf)
            worker.connection.close()


def _exit_reason(worker: ProcessWorker) -> str:
    """Without the worker's number: it may be stored with a draw, and must not depend on who drew it."""
    _end(worker, STOP_TIMEOUT_S)
    code = worker.process.exitcode
    if code is not None and code < 0:
        known = -code in set(signal.Signals)
        return f"the worker was ended by {signal.Signals(-code).name if known else -code}"
    return f"the worker ended with exit code {code}"


def _end(worker: ProcessWorker, timeout: float) -> bool:
    """Wait until a worker has ended, then kill what it left, which may hold its device's memory.

    Returns whether it ended within `timeout` seconds.
    """
    pid, end = worker.process.pid or 0, time.monotonic() + timeout
    # `Process.join` with a timeout waits for a pipe to close, which a forked child keeps open.
    while not has_exited(pid):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    with suppress(ProcessLookupError, PermissionError):  # nobody is left, or it died before it led a group
        os.killpg(pid, signal.SIGKILL)
    worker.process.join()
    return True


@contextmanager
def _blocking_interrupts() -> Iterator[None]:
    """Block what the parent handles while a child is started: it inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_BY_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(extra: Mapping[str, str]) -> Iterator[None]:
    """Set variables while a child is started, which is when it takes its copy."""
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _worker_main(task: Task, connection: Connection, slot: WorkerSlot) -> None:
    """Main function of a worker: open the task, then run block after block until None arrives."""
    _lead_group(connection)
    for number in HANDLED_BY_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    use_error_stream_for_output()
    try:
        with safe_streams(), task.open(slot) as run_block:
            connection.send(("ready", None))
            _serve(connection, run_block)
    except SarEvalError as error:
        _send_fatal(connection, error)
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
    except Exception as error:  # noqa: BLE001 - whatever broke the start ends the run
        if os.environ.get("SAR_EVAL_DEBUG", "0") not in ("", "0"):
            traceback.print_exc(file=sys.stderr)
        _send_fatal(connection, SarEvalError(f"a worker could not start: {_describe(error)}"))
    finally:
        # From here on there is nothing to tidy up, and an exception at exit would be shown.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _lead_group(connection: Connection) -> None:
    """Make a process group of this worker and all that it will start, to end them together."""
    os.setpgid(0, 0)
    # A forked child that kept our end of the pipe would hide this worker's death from the parent.
    os.register_at_fork(after_in_child=connection.close)


def _send_fatal(connection: Connection, error: SarEvalError) -> None:
    """Send the error that ends the run; the parent answers with SIGTERM, at which to exit at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connection.send(("fatal", error))


def _exit_on_sigterm(number: int, frame: FrameType | None) -> None:
    """End by an exception, so that a half-written temporary file is removed on the way out."""
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(1)


def _serve(connection: Connection, run_block: Callable[[int], Any]) -> None:
    """Run block after block until None, and send their results in that order.

    A pending result is waited for when the next block is done, or when there is none to begin.
    """
    pending: Future[Any] | None = None
    while True:
        block = _receive_block(connection, pending)
        if pending is None and block is None:
            return
        kind, content = ("idle", None) if block is None else _try(partial(run_block, block))
        if pending is not None:
            connection.send(_try(pending.result))
        pending = content if isinstance(content, Future) else None
        if pending is None and kind != "idle":
            connection.send((kind, content))


def _receive_block(connection: Connection, pending: Future[Any] | None) -> int | None:
    """The next block; None if none arrives while a result is pending, or the parent has no more."""
    # The parent sends one when it receives the last result: polling only once would be too early.
    while pending is not None and not connection.poll(POLL_S):
        if pending.done():
            return None
    block: int | None = connection.recv()
    return block


def _try(work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "done", work()
    except DeviceLost as error:
        # This process cannot use its device any more; the parent starts another one.
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    except SarEvalError as error:
        return "fatal", error
    except Exception as error:  # noqa: BLE001 - sent to the parent, which retries or records it
        return "failed", _describe(error)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _exit_with_parent() -> None:
    """End with all children when the parent dies, so that nobody else writes in its run."""
    parent = mp.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(os.getpgrp(), signal.SIGKILL)  # a group of its own (`_lead_group`)
