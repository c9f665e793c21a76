"""SIGTERM and SIGHUP like Ctrl-C: one KeyboardInterrupt, however often and quickly they come."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TIDYING_S = 5.0  # how long stopping may take until another signal ends the process at once
REPEAT_S = 0.05
EXIT_CODE = 3  # incomplete


class _Interrupt:
    """Raises KeyboardInterrupt at the first signal, and drops those that follow while things are tidied."""

    first_at: float | None = None
    number = int(signal.SIGINT)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.first_at is None:
            self.first_at, self.number = time.monotonic(), number
            raise KeyboardInterrupt
        if time.monotonic() - self.first_at > TIDYING_S:
            os._exit(EXIT_CODE)  # the workers end with this process

    def repeat(self) -> None:
        """Send the signal again, a little later: its exception was raised where nothing can pass it on."""
        self.first_at = None
        main = threading.main_thread().ident or 0
        timer = threading.Timer(REPEAT_S, signal.pthread_kill, (main, self.number))
        timer.daemon = True
        timer.start()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the signals are a KeyboardInterrupt; one that was ignored before (nohup) stays so."""
    interrupt, before = _Interrupt(), sys.unraisablehook

    def hook(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            interrupt.repeat()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        with _handling(dict.fromkeys(SIGNALS, interrupt)):
            yield
    finally:
        sys.unraisablehook = before
        exec("")  # noqa: S102 - else CPython ends by SIGINT if the interrupt left the exec of a string


class TimeWarning:
    """Within, USR1 only sets `came`: batch systems send it a while before a job's time is up.

    In a thread other than the main one, where Python handles no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: Any = signal.SIG_DFL

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGUSR1, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.came = True


@contextmanager
def raising_lost_interrupts() -> Iterator[Callable[[], None]]:
    """Yields a check that raises KeyboardInterrupt if a signal came and its exception got lost.

    Python drops an exception that a signal raises inside a finalizer or a callback of C code; the
    run would then go on to its end.
    """
    pressed: list[int] = []

    def noting(before: Any) -> Callable[[int, FrameType | None], None]:
        def note(number: int, frame: FrameType | None) -> None:
            pressed.append(number)
            before(number, frame)

        return note

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    handled = {number: before for number in SIGNALS if callable(before := signal.getsignal(number))}
    with _handling({number: noting(before) for number, before in handled.items()}):
        yield check


@contextmanager
def _handling(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Set handlers for a while, where one can: in the main thread, for signals that are not ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    replaced = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    try:
        for number in replaced:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, old in replaced.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)
