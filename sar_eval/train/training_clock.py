"""How long a training has trained: what it waits for an evaluation is no part of its speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """Seconds since it was made, without those of its pauses."""

    def __init__(self) -> None:
        self._begin, self._paused = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return time.perf_counter() - self._begin - self._paused

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is done in here does not count."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - started
