"""Worker processes that take blocks from the parent's queue; one that dies is replaced."""

from __future__ import annotations

import math
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Protocol

from sar_eval.errors import DeviceLost, Incomplete, SarEvalError
from sar_eval.machine import has_exited
from sar_eval.runtime.interrupts import raising_lost_interrupts
from sar_eval.runtime.slots import WorkerSlot, sharing_memory
from sar_eval.runtime.streams import safe_streams, use_error_stream_for_output

PREFETCH = 2  # blocks that a worker holds at most: one in work, one to begin while the last is stored
MAX_TRIES = 3  # a block that ends this many workers, or fails this often, is given up
POLL_S = 0.005  # how often a worker with a pending result looks whether that is done
STOP_TIMEOUT_S = 2.0  # how long a worker may take to end after SIGTERM
CLOSE_TIMEOUT_S = 30.0  # how long it may take to release its device when the work is done
HANDLED_BY_PARENT = (signal.SIGINT, signal.SIGHUP)  # they reach the whole group of the terminal


class Task(Protocol):
    """What workers do; it is pickled into each of them."""

    def open(self, slot: WorkerSlot) -> AbstractContextManager[Callable[[int], Any]]:
        """Load what is needed once; yields the function that runs one block.

        It returns the block's result, or a future of it: then the worker begins its next block while
        the future completes.
        """
        ...


@dataclass(frozen=True, slots=True)
class BlockResult:
    """A finished block: its result, or the error after which no more tries were made."""

    block: int
    worker: int
    result: Any = None
    error: str | None = None


@dataclass(slots=True)
class _Worker:
    slot: WorkerSlot
    process: BaseProcess
    connection: Connection
    ready: bool = False
    blocks: deque[int] = field(default_factory=deque)


def run_blocks(
    task: Task, blocks: Iterable[int], slots: Sequence[WorkerSlot]
) -> Generator[BlockResult, None, None]:
    """Run every block once, in worker processes, one for each slot; results in order of completion.

    A worker that dies is replaced and its blocks redone, up to three times.

    Raises:
        SarEvalError: a worker met an error that more tries cannot mend (bad input, full disk).
    """
    waiting = deque(blocks)
    used = sharing_memory(slots[: max(1, min(len(slots), len(waiting)))])
    workers: list[_Worker] = []
    tries: Counter[int | None] = Counter()  # by block; None counts deaths before any block
    try:
        with raising_lost_interrupts() as check:
            workers += [_start(task, slot) for slot in used if waiting]
            while workers:
                for connection in wait([worker.connection for worker in workers]):
                    worker = next(w for w in workers if w.connection is connection)
                    yield from _handle_message(worker, task, waiting, tries, workers)
                check()
    finally:
        _stop(workers)


def _handle_message(
    worker: _Worker, task: Task, waiting: deque[int], tries: Counter[int | None], workers: list[_Worker]
) -> list[BlockResult]:
    """Receive one message (or the exit) of a worker and send it its next block."""
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError):  # OSError: killed in the middle of a message
        kind, content = "died", _exit_reason(worker)
        workers.remove(worker)
    if kind == "fatal":
        raise content
    if kind == "done":
        results = [BlockResult(worker.blocks.popleft(), worker.slot.index, content)]
    elif kind == "failed":
        results = _requeue(worker, 1, str(content), waiting, tries)
    elif kind == "died" and not worker.ready:
        _count_failed_start(str(content), tries)
        results = []
    else:
        results = _requeue(worker, len(worker.blocks), str(content), waiting, tries)
    worker.ready = True
    if kind != "died":
        _dispatch(worker, waiting, tries, workers)
    elif waiting:
        workers.append(_start(task, worker.slot))
    return results


def _requeue(
    worker: _Worker, number: int, error: str, waiting: deque[int], tries: Counter[int | None]
) -> list[BlockResult]:
    """Requeue the worker's first blocks; those that failed too often become results with an error."""
    exhausted = []
    for block in [worker.blocks.popleft() for _ in range(number)]:
        tries[block] += 1
        if tries[block] >= MAX_TRIES:
            message = f"given up after {MAX_TRIES} tries: {error}"
            exhausted.append(BlockResult(block, worker.slot.index, error=message))
        else:
            waiting.appendleft(block)
    return exhausted


def _count_failed_start(error: str, tries: Counter[int | None]) -> None:
    tries[None] += 1
    if tries[None] >= MAX_TRIES:
        raise Incomplete(
            f"workers could not start, {MAX_TRIES} times; the last: {error}. Finished blocks are stored: "
            "mend this and run the same command again to go on"
        )


def _dispatch(
    worker: _Worker, waiting: deque[int], tries: Counter[int | None], workers: list[_Worker]
) -> None:
    """Send an idle worker a block, and one to prefetch if there are enough for all; or end the worker."""
    try:
        if waiting and not worker.blocks:
            _send(worker, waiting.popleft())
        if len(waiting) >= len(workers) and not any(tries[b] for b in (*worker.blocks, waiting[0])):
            # A block that ended a worker goes alone, so that no other one is blamed for it again.
            while len(worker.blocks) < PREFETCH:
                _send(worker, waiting.popleft())
        if not worker.blocks:
            worker.connection.send(None)
    except (BrokenPipeError, ConnectionResetError):
        return  # It died meanwhile: the next recv says so, and its blocks are redone.
    if not worker.blocks:
        workers.remove(worker)
        _end(worker, CLOSE_TIMEOUT_S)
        _stop([worker])


def _send(worker: _Worker, block: int) -> None:
    worker.blocks.append(block)  # first: should the pipe be broken, the block is not lost
    worker.connection.send(block)


def _exit_reason(worker: _Worker) -> str:
    _end(worker, STOP_TIMEOUT_S)
    code = worker.process.exitcode
    if code is not None and code < 0:
        known = -code in set(signal.Signals)
        return f"worker {worker.slot.index} was ended by {signal.Signals(-code).name if known else -code}"
    return f"worker {worker.slot.index} ended with exit code {code}"


def _start(task: Task, slot: WorkerSlot) -> _Worker:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker_main, args=(task, theirs, slot))
    with _environment({"OMP_NUM_THREADS": str(slot.threads), **slot.environment}), _blocking_interrupts():
        process.start()
    theirs.close()
    return _Worker(slot, process, ours)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        if not _end(worker, STOP_TIMEOUT_S):
            worker.process.kill()
            _end(worker, math.inf)
        worker.connection.close()


def _end(worker: _Worker, timeout: float) -> bool:
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
