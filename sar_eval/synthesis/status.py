"""How far a set is, read from its ledgers and done-records by anyone who can read the store.

Done-records hold no times, as the same block gives the same bytes: the store's listing has them. Rates are
taken by that clock alone, so it does not matter whether this machine's agrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sar_eval.stats.running_share import RunningShare
from sar_eval.storage.image_set import LEDGER_NAME, RECORD_NAME, ImageSet
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.funnel import FunnelStep, funnel

WINDOWS_S = (600.0, 6 * 3600.0)  # the second is for blocks that take long
ENOUGH = 5  # done-records in a window, for a rate
SHOWN_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class SetStatus:
    """How far a set is.

    Attributes:
        uri: of the set.
        blocks: of the whole set.
        committed: blocks that have a done-record.
        draws: of the whole set; `drawn` those of committed blocks.
        share: of kept draws among those of committed blocks.
        fates: draws of committed blocks by fate, as in a `BlockRecord`.
        funnel: what is left of their draws after each step.
        data_bytes: of all data objects.
        lacking: numbers of the committed blocks in which draws failed or are unjudged: the next start
            draws them again.
        problems: the first few errors, as "ROW/INDEX: why".
        shares: blocks that are left of each share that is incomplete, by its number from 1, if shares were
            asked for.
        devices: that drew it.
        last: when the latest done-record was written (seconds since 1970, the store's clock); None where
            there is none.
        pictures_per_second, blocks_per_second: up to `last`; None where too few blocks are committed.
    """

    uri: str
    blocks: int
    draws: int
    committed: int = 0
    drawn: int = 0
    share: RunningShare = field(default_factory=RunningShare)
    fates: Mapping[str, int] = field(default_factory=dict)
    funnel: tuple[FunnelStep, ...] = ()
    data_bytes: int = 0
    lacking: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    shares: Mapping[int, int] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    last: float | None = None
    pictures_per_second: float | None = None
    blocks_per_second: float | None = None

    @property
    def left(self) -> int:
        """Blocks that have no done-record."""
        return self.blocks - self.committed

    @property
    def complete(self) -> bool:
        """Whether every block is there and every draw has a result."""
        return not self.left and not self.lacking

    @property
    def seconds_left(self) -> float | None:
        """At the pace up to `last`, whoever draws; None where that is not known."""
        return self.left / self.blocks_per_second if self.left and self.blocks_per_second else None


def read_status(
    image_set: ImageSet, blocks: int, draws: int, clauses: Sequence[str] = (), shares: int = 0
) -> SetStatus:
    """Read a set's status.

    Args:
        image_set: to look at; nothing is written.
        blocks, draws: of the whole set.
        clauses: of its filter, in order.
        shares: into how many its blocks are divided, as `synthesis.shares` does; 0 if they are not.

    Raises:
        BadInput: a record is broken, or the store cannot be read.
    """
    times = sorted(_times(image_set))  # before the records: each time has its record then
    counted = _Counted(shares, {block for _, block in times})
    steps = funnel(map(counted.add, image_set.records()), clauses)
    return with_rate(
        SetStatus(
            image_set.store.uri,
            blocks,
            draws,
            committed=counted.share.blocks,
            drawn=counted.share.draws,
            share=counted.share,
            fates=dict(counted.fates),
            funnel=tuple(steps),
            data_bytes=counted.data_bytes,
            lacking=tuple(counted.lacking),
            problems=tuple(counted.problems),
            shares=counted.shares_left(blocks),
            devices=tuple(sorted(counted.devices - {""})),
        ),
        times,
        counted.draws,
    )


class _Counted:
    """What records say, one after the other: there may be millions of them."""

    def __init__(self, shares: int, recent: Container[int]) -> None:
        """`recent`: blocks whose draws are noted."""
        self.shares, self.recent = shares, recent
        self.share, self.fates, self.data_bytes = RunningShare(), Counter[str](), 0
        self.lacking, self.problems, self.devices = list[int](), list[str](), set[str]()
        self.draws: dict[int, int] = {}
        self.whole: Counter[int] = Counter()  # blocks by share

    def add(self, record: BlockRecord) -> BlockRecord:
        """Count a record, and pass it on."""
        self.share.add(record.fates.get("kept", 0), record.draws, record.prompts)
        self.fates.update(record.fates)
        self.data_bytes += record.data_bytes
        self.devices.add(record.device)
        self.problems += record.problems[: SHOWN_PROBLEMS - len(self.problems)]
        if record.block in self.recent:
            self.draws[record.block] = record.draws
        if record.lacking:
            self.lacking.append(record.block)
        elif self.shares:
            self.whole[record.block % self.shares + 1] += 1
        return record

    def shares_left(self, blocks: int) -> dict[int, int]:
        """Blocks that are left of each share that is incomplete, by its number."""
        sizes = ((n + 1, len(range(n, blocks, self.shares))) for n in range(min(self.shares, blocks)))
        return {share: left for share, size in sizes if (left := size - self.whole[share])}


def with_rate(status: SetStatus, times: list[tuple[float, int]], draws: Mapping[int, int]) -> SetStatus:
    """The status with the rate up to the latest done-record.

    Args:
        status: without.
        times: of done-records, (seconds since 1970, block), in order of time.
        draws: of each block.
    """
    if not times:
        return status
    last = times[-1][0]
    status = replace(status, last=last)
    for window in WINDOWS_S:
        lately = [(time, block) for time, block in times if time >= last - window]
        span = last - lately[0][0]
        if len(lately) >= ENOUGH and span > 0:
            # The first of them only says when the clock began.
            pictures = sum(draws.get(block, 0) for _, block in lately[1:])
            return replace(
                status, pictures_per_second=pictures / span, blocks_per_second=(len(lately) - 1) / span
            )
    return status


def _times(image_set: ImageSet) -> Iterator[tuple[float, int]]:
    """Time and block of the done-records that may be recent: those of groups that have no ledger yet."""
    store = image_set.store
    matches = (LEDGER_NAME.fullmatch(info.name) for info in store.list("ledger/"))
    over = {match[1] for match in matches if match}
    folders = store.folders("done")
    for folder in folders:
        if folder not in over or folder == folders[-1]:
            for info in store.list(f"done/{folder}/"):
                if match := RECORD_NAME.fullmatch(info.name):
                    yield info.modified, int(match[2])
