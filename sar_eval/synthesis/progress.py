"""How far a synthesis is and how fast it goes, counted from the driver's events."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sar_eval.stats.running_share import RunningShare
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.monitor import SynthEvent

WINDOW_S = 120.0  # over which rates are taken: what counts is how fast it goes now
STEP_S = 0.5  # between the marks that a window keeps


class Pace:
    """Amounts a second over the last `WINDOW_S` seconds, or since it began if that is less."""

    def __init__(self, now: float) -> None:
        self.total = 0
        self._marks = deque([(now, 0)])

    def add(self, now: float, amount: int) -> None:
        """Count what was finished at this time."""
        self.total += amount
        if len(self._marks) > 1 and now - self._marks[-2][0] < STEP_S:
            self._marks.pop()
        self._marks.append((now, self.total))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW_S:
            self._marks.popleft()

    def per_second(self, now: float) -> float | None:
        """The rate; None before the first amount. It falls while nothing is finished."""
        since, before = self._marks[0]
        return (self.total - before) / (now - since) if self.total and now > since else None


@dataclass(slots=True)
class Tally:
    """What one worker, or all of them, have committed since this start.

    Attributes:
        pace: of draws.
        share: of kept draws.
        fates: draws by fate, as in a `BlockRecord`.
        blocks, lacking: how many; draws without a picture or a verdict.
        seconds: of workers, for these blocks.
    """

    pace: Pace
    share: RunningShare = field(default_factory=RunningShare)
    fates: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    lacking: int = 0
    seconds: float = 0.0

    def add(self, record: BlockRecord, seconds: float, now: float) -> None:
        """Count one block."""
        self.pace.add(now, record.draws)
        self.share.add(record.fates.get("kept", 0), record.draws, record.prompts)
        self.fates.update(record.fates)
        self.blocks += 1
        self.lacking += record.lacking
        self.seconds += seconds


class SynthProgress:
    """What the displays show; its own call takes the events.

    Attributes:
        done, total: blocks, as the last event says.
        overall: what this start has committed.
        workers: the same for each worker that has committed a block.
        elsewhere: blocks that another driver committed before this one could.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.done = self.total = 0
        self._begin(clock())

    def _begin(self, now: float) -> None:
        self.began, self.elsewhere = now, 0
        self.overall = Tally(Pace(now))
        self.workers: dict[int, Tally] = {}
        self._blocks = Pace(now)  # whoever commits them

    def __call__(self, event: SynthEvent) -> None:
        """Count one event."""
        now = self._clock()
        if event.kind == "start":
            self._begin(now)
        elif event.done_blocks > self.done:
            self._blocks.add(now, event.done_blocks - self.done)
        self.done, self.total = event.done_blocks, event.total_blocks
        if event.kind == "block":
            self._count(event, now)

    def _count(self, event: SynthEvent, now: float) -> None:
        if event.record is None:
            self.elsewhere += 1
            return
        self.overall.add(event.record, event.seconds, now)
        if event.worker is not None:
            # A worker's first block began with the start, not when its first event arrived.
            worker = self.workers.setdefault(event.worker, Tally(Pace(self.began)))
            worker.add(event.record, event.seconds, now)

    def rate(self, tally: Tally) -> float | None:
        """Pictures a second, lately."""
        return tally.pace.per_second(self._clock())

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self.began

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the last minutes; None before the first block."""
        pace = self._blocks.per_second(self._clock())
        return (self.total - self.done) / pace if pace else None
