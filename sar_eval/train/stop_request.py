"""Ctrl-C in training: the step at hand is finished and its state saved; a second one stops at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAUNCHER = "TORCHELASTIC_RUN_ID"  # torchrun and `accelerate launch` set it
ECHO_S = 3.0  # within which a launcher repeats a Ctrl-C to its processes, which had it already


class StopRequest:
    """Within, the first signal only sets `requested`; the next one does what it did before.

    In a thread other than the main one, where Python handles no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self.requested:
            self.requested, self._at = True, time.monotonic()
            if LAUNCHER not in os.environ:
                self._restore()
        elif time.monotonic() - self._at > ECHO_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
