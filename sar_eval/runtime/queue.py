"""Which worker gets which block, and what a death or a failure means: the same for every runtime."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from sar_eval.errors import Incomplete
from sar_eval.runtime.interrupts import raising_lost_interrupts
from sar_eval.runtime.runtimes import BlockResult
from sar_eval.runtime.slots import WorkerSlot

PREFETCH = 2  # blocks that a worker holds at most: one in work, one to begin while the last is stored
MAX_TRIES = 3  # a block that ends this many workers, or fails this often, is given up
MAX_LOSSES = 10  # so often a block may lose its worker to a machine that goes away

# What a worker says: ("ready", None), ("done", result of its first block), ("failed", why),
# ("fatal", the error that ends the run); and what its crew says of it: ("died", why) if it ended, or
# ("lost", why) if its machine went away, for which no block is to blame.
Message = tuple[str, Any]


@dataclass(slots=True, eq=False)
class Worker:
    """What the queue knows of a worker.

    Attributes:
        slot: where it computes.
        ready: whether it has loaded what it needs.
        blocks: those it holds, in the order in which their results will come.
    """

    slot: WorkerSlot
    ready: bool = False
    blocks: deque[int] = field(default_factory=deque)


W = TypeVar("W", bound=Worker)


class Crew(Protocol[W]):
    """The workers of a runtime: how they are started, spoken to and ended."""

    def start(self, slot: WorkerSlot) -> W:
        """Start a worker, without waiting for it."""
        ...

    def receive(self, workers: Sequence[W]) -> Iterable[tuple[W, Message]]:
        """One message of each worker that has one; waits for a first one, or for a moment."""
        ...

    def send(self, worker: W, blocks: Sequence[int]) -> None:
        """Give a worker its next blocks, or none while it holds one; if it is dead, `receive` says so."""
        ...

    def end(self, worker: W) -> None:
        """Let a worker that holds no block close what it opened, and end."""
        ...

    def stop(self, workers: Sequence[W]) -> None:
        """End workers whatever they do, and what they left; returns when all are gone."""
        ...


class BlockQueue:
    """Blocks to be done, drawn lazily from their source, those to be done again first."""

    def __init__(self, blocks: Iterable[int]) -> None:
        self._source = iter(blocks)
        self._waiting: deque[int] = deque()
        self._tries: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()

    def ahead(self, most: int) -> int:
        """How many blocks wait, at most `most`: no more than that are drawn from the source."""
        while len(self._waiting) < most:
            if (block := next(self._source, None)) is None:
                break
            self._waiting.append(block)
        return min(most, len(self._waiting))

    def assign(self, worker: Worker, workers: int) -> list[int]:
        """Give a worker a block, and one to prefetch if there are enough for all `workers`."""
        given: list[int] = []
        if not worker.blocks and self.ahead(1):
            given.append(self._give(worker))
        # A block that ended a worker goes alone, so that no other one is blamed for it again.
        while (
            0 < len(worker.blocks) < PREFETCH
            and self.ahead(workers) >= workers
            and not any(map(self._is_suspect, (*worker.blocks, self._waiting[0])))
        ):
            given.append(self._give(worker))
        return given

    def _give(self, worker: Worker) -> int:
        block = self._waiting.popleft()
        worker.blocks.append(block)
        return block

    def _is_suspect(self, block: int) -> bool:
        return self._tries[block] > 0 or self._losses[block] > 0

    def take_back(
        self, worker: Worker, number: int, error: str, *, blamed: bool = True
    ) -> list[BlockResult]:
        """Requeue the worker's first blocks; those that failed too often become results with an error."""
        count, most = (self._tries, MAX_TRIES) if blamed else (self._losses, MAX_LOSSES)
        exhausted = []
        for block in [worker.blocks.popleft() for _ in range(number)]:
            count[block] += 1
            if count[block] >= most:
                message = f"given up after {most} tries: {error}"
                exhausted.append(BlockResult(block, worker.slot.index, error=message))
            else:
                self._waiting.appendleft(block)
        return exhausted


def run_queue(
    queue: BlockQueue, slots: Sequence[WorkerSlot], crew: Crew[W]
) -> Generator[BlockResult, None, None]:
    """Run every block of the queue once, in one worker for each slot; see `Runtime.run`."""
    run = _Run(queue, crew)
    try:
        with raising_lost_interrupts() as check:
            for slot in slots:
                run.start(slot)
            while run.has_work():
                for worker, message in crew.receive(run.workers):
                    yield from run.handle(worker, message)
                check()
    finally:
        crew.stop(run.workers)


class _Run(Generic[W]):
    """Moves blocks between a queue and the workers of a crew."""

    def __init__(self, queue: BlockQueue, crew: Crew[W]) -> None:
        self.queue, self.crew = queue, crew
        self.workers: list[W] = []
        self.failed_starts: Counter[str] = Counter()  # since a worker last came to be ready

    def start(self, slot: WorkerSlot) -> None:
        """Start a worker."""
        self.workers.append(self.crew.start(slot))

    def has_work(self) -> bool:
        """Whether a block waits or is in work; a worker that then still starts is not waited for."""
        return any(worker.blocks for worker in self.workers) or bool(self.workers and self.queue.ahead(1))

    def handle(self, worker: W, message: Message) -> list[BlockResult]:
        """Take a message, and give its worker, or the one that replaces it, the next block."""
        kind, content = message
        if kind == "fatal":
            raise content
        is_gone = kind in {"died", "lost"}
        if is_gone:
            self.workers.remove(worker)
        results = self._settle(worker, kind, content)
        if not is_gone:
            worker.ready = True
            self._dispatch(worker)
        elif self.queue.ahead(1):
            self.start(worker.slot)
        return results

    def _settle(self, worker: W, kind: str, content: Any) -> list[BlockResult]:
        """The results that a message brings: of a block that is done, or of those given up."""
        if kind == "done":
            return [BlockResult(worker.blocks.popleft(), worker.slot.index, content)]
        if kind == "failed":
            return self.queue.take_back(worker, 1, str(content))
        if kind == "ready":
            self.failed_starts.clear()
        elif not worker.ready:
            self._count_failed_start(kind, str(content))
        else:
            return self.queue.take_back(worker, len(worker.blocks), str(content), blamed=kind == "died")
        return []

    def _count_failed_start(self, kind: str, error: str) -> None:
        self.failed_starts[kind] += 1
        most = MAX_TRIES if kind == "died" else MAX_LOSSES
        if self.failed_starts[kind] >= most:
            raise Incomplete(
                f"workers could not start, {most} times; the last: {error}. Finished blocks are stored: "
                "mend this and run the same command again to go on"
            )

    def _dispatch(self, worker: W) -> None:
        """Send a worker its next blocks; or end it, if there are none."""
        given = self.queue.assign(worker, len(self.workers))
        if worker.blocks:
            self.crew.send(worker, given)
        else:
            self.workers.remove(worker)
            self.crew.end(worker)
