"""A limit of the time that a recipe's regular expressions may take.

Matching can take exponential time, and no rule tells for which expressions. Python's matcher looks for
signals as it goes, so an alarm ends it. Only a main thread, which judges run in, can have one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sar_eval.suites.rubric.readers import UnreadReply

READING_S = 5.0  # of one reply; usual ones take less than a millisecond


@contextmanager
def time_limit(seconds: float = READING_S) -> Iterator[None]:
    """Raise UnreadReply if what is done takes longer; without effect in other threads than the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _give_up(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise UnreadReply("a regular expression takes too long on the reply: write it without nested repeats")
