"""Waves: draws that go through the networks together, as many as fit the memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from sar_eval.errors import DeviceLost
from sar_eval.types import Draw

Result = TypeVar("Result")


def waves(
    waiting: deque[Draw], limit: int, draw: Callable[[list[Draw]], Result | None], device: str
) -> Iterator[tuple[list[Draw], Result | str, float]]:
    """Waves with their result and seconds per draw, or with the error of a draw too large for memory.

    Waves are of equal size, which is halved when memory runs out.

    Args:
        waiting: the draws, in order; they are taken out of it.
        limit: most draws of one wave.
        draw: the result of a wave, None if memory ran out (see `none_if_out_of_memory`).
        device: for the message.
    """
    while waiting:
        size = -(-len(waiting) // -(-len(waiting) // limit))
        wave = [waiting.popleft() for _ in range(size)]
        started = time.perf_counter()
        result = draw(wave)
        if result is not None:
            yield wave, result, (time.perf_counter() - started) / size
        elif size > 1:
            waiting.extendleft(reversed(wave))
            limit = size // 2
        else:
            yield wave, f"out of memory for a single image on {device}", 0.0


def one_ahead(begun: Iterator[Future[list[Result]]]) -> Iterator[Result]:
    """The results of futures in their order; the next one is begun before a result is waited for."""
    previous: Future[list[Result]] | None = None
    for current in begun:
        if previous is not None:
            yield from previous.result()
        previous = current
    if previous is not None:
        yield from previous.result()


def none_if_out_of_memory(
    function: Callable[[], Result], device: str, release: Callable[[], None]
) -> Result | None:
    """The function's result, or None if it ran out of memory, after `release`.

    Raises:
        DeviceLost: the GPU failed.
    """
    import torch

    from sar_eval.tensors.out_of_memory import is_out_of_memory

    try:
        return function()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            release()
            return None
        if device != "cpu" and isinstance(error, torch.AcceleratorError):
            raise DeviceLost(f"{device}: {str(error).splitlines()[0]}") from error
        raise
