"""Keeps requests apart, for a server that takes so many a minute."""

from __future__ import annotations

import threading
import time


class Pace:
    """At most so many requests a minute, evenly spaced; threads share it."""

    def __init__(self, per_minute: float = 0.0) -> None:
        """`per_minute`: 0 for no limit."""
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._next = 0.0  # when the next request may go, on the monotonic clock
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> bool:
        """Wait for this request's turn, or until `stop` is set, which it returns."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            if self._interval_s or self._next > now:
                self._next = turn + self._interval_s
        return turn > now and stop.wait(turn - now)

    def pause(self, seconds: float) -> None:
        """Let no request go for so long: the server asked for it, and would refuse the others as well."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)
