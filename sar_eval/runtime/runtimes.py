"""The seam between stages and runtimes: what a worker does, and who runs it over blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from sar_eval.runtime.slots import WorkerSlot


class Task(Protocol):
    """What workers do; it is pickled into each of them."""

    def open(self, slot: WorkerSlot) -> AbstractContextManager[Callable[[int], Any]]:
        """Load what is needed once; yields the function that runs one block.

        It returns the block's result, or a future of it: then the worker begins its next block while
        the future completes. What a block makes is stored by the worker; its result is numbers and names.
        """
        ...


@dataclass(frozen=True, slots=True)
class BlockResult:
    """A finished block: its result, or the error after which no more tries were made."""

    block: int
    worker: int
    result: Any = None
    error: str | None = None


class Runtime(Protocol):
    """Workers somewhere: processes on this machine, actors of a cluster."""

    def run(self, task: Task, blocks: Iterable[int]) -> Generator[BlockResult, None, None]:
        """Run every block once; results in order of completion.

        Blocks are drawn from the iterable as workers come to need them. A worker that dies is replaced
        and its blocks redone, up to three times. To leave early, close the generator.

        Raises:
            SarEvalError: a worker met an error that more tries cannot mend (bad input, full disk).
        """
        ...
