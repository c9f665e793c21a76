"""What the driver of a synthesis says while it runs, for whatever shows or records it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sar_eval.storage.set_rows import BlockRecord


@dataclass(frozen=True, slots=True)
class SynthEvent:
    """One step of the driver.

    Attributes:
        kind: "start" once, before anything is drawn; "block" for each block that is committed from then
            on; "note" for something worth showing; "end" once, also after an interrupt.
        done_blocks, total_blocks: of what this driver is to do (the set, or its share), with the blocks
            that were there at the start.
        block: its number; None unless the event is about one.
        worker: index of the worker that made the block; None where it is not known.
        record: what was committed; None where another driver had committed the block before.
        seconds: that the worker took for the block, storing it included.
        note: of a "note" what there is to say (a worker that died, a block given up); of the "end" why it
            came early, "" if all is done.
    """

    kind: Literal["start", "block", "note", "end"]
    done_blocks: int
    total_blocks: int
    block: int | None = None
    worker: int | None = None
    record: BlockRecord | None = None
    seconds: float = 0.0
    note: str = ""


Monitor = Callable[[SynthEvent], None]


def no_monitor(event: SynthEvent) -> None:
    """A monitor that shows nothing."""


def several(*monitors: Monitor) -> Monitor:
    """One monitor that passes each event to all of them, in this order."""

    def tell(event: SynthEvent) -> None:
        for monitor in monitors:
            monitor(event)

    return tell
