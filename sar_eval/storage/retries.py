"""How often, and how patiently, a call to a store is tried."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """Bounded tries with growing waits, each cut at random so that workers do not come back all at once.

    The defaults wait about 70 s in all: longer than a throttled or failed-over store usually takes.

    Attributes:
        tries: of one call, the first included.
        first_s: the longest wait before the second try; it doubles from try to try.
        longest_s: what it doubles up to.
        timeout_s: without a byte from the store, after which one try has failed.
    """

    tries: int = 9
    first_s: float = 0.25
    longest_s: float = 30.0
    timeout_s: float = 60.0

    def waits(self) -> Iterator[float]:
        """Seconds before each further try: between half of the bound and all of it ("equal jitter")."""
        for n in range(self.tries - 1):
            yield min(self.longest_s, self.first_s * 2**n) * random.uniform(0.5, 1.0)

    def call(self, action: Callable[[], T], is_transient: Callable[[Exception], bool]) -> T:
        """The result of an action.

        Raises:
            Exception: the action's own, of its last try or of the first that is not transient.
        """
        for wait in self.waits():
            try:
                return action()
            except Exception as error:
                if not is_transient(error):
                    raise
                time.sleep(wait)
        return action()


PATIENT = Retries()
