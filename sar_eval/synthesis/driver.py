"""The driver of a synthesis: which blocks are left, and what is done about one that cannot be drawn.

Whatever is stopped at any moment, by whatever means, goes on with the same command: all state is in the
store, and a block is there or it is not. Several drivers may work on one set at once, on as many machines:
each claims what it has in work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

from sar_eval.errors import BadInput, Incomplete
from sar_eval.runtime.runtimes import Runtime
from sar_eval.storage.image_set import BLOCKS_PER_GROUP, ImageSet, record_name
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.block import BlockOutcome, BlockTask, PromptTask
from sar_eval.synthesis.claims import Claims
from sar_eval.synthesis.committed import CommittedBlocks
from sar_eval.synthesis.monitor import Monitor, SynthEvent, no_monitor
from sar_eval.synthesis.shares import Share
from sar_eval.synthesis.spec import SetSpec
from sar_eval.types import Shard

HOPELESS = 8  # prompts that fail alone, before any has been drawn, after which none is expected to be


@dataclass
class Driver:
    """Draws what a share of a set lacks, then what others are slow with.

    Attributes:
        image_set: begun, see `begin_set`.
        spec: of the set.
        runtime: where workers run.
        holder: the name of this driver in its claims (see `synthesis.claims`).
        monitor: told of every step.
        shard: this driver's share of the set: all of it by default.
        is_stopped: asked before each block; from True on no more are begun.
        tries_again: whether blocks that were committed with draws lacking are drawn again.
        done, total: blocks of this driver that are there, and all of them.
        committed, lacking: blocks that it committed, and draws that they lack.
        own_left, left: blocks of its share, and of the whole set, that are not committed at its end.
    """

    image_set: ImageSet
    spec: SetSpec
    runtime: Runtime
    holder: str
    monitor: Monitor = no_monitor
    shard: Shard = Shard()  # noqa: RUF009 - frozen
    is_stopped: Callable[[], bool] = bool
    tries_again: bool = True
    done: int = 0
    total: int = 0
    committed: int = 0
    lacking: int = 0
    own_left: int = 0
    left: int = 0
    _works: bool = False  # whether any draw of the set has ever come out
    _failed: dict[int, str] = field(default_factory=dict)
    _counted: set[int] = field(default_factory=set)
    _mended: set[int] = field(default_factory=set)  # committed as a later attempt

    @property
    def own(self) -> range:
        """Numbers of its share's blocks."""
        return range(self.shard.index - 1, self.spec.blocks, self.shard.of)

    def run(self) -> None:
        """Draw.

        Raises:
            SarEvalError: a fault that more tries cannot mend; what is committed stays.
        """
        earlier = self._count_committed()
        if not earlier:  # of a start that was killed: the next one shall not read its records one by one
            self.image_set.write_ledgers(self.spec.blocks)
        self._tell("start")
        store, why = self.image_set.store, "interrupted"
        try:
            with Claims(store, self.holder) as claims:
                committed = CommittedBlocks(store, self.spec.blocks)
                share = Share(self.shard, self.spec.blocks, committed, claims, earlier, self.is_stopped)
                self._draw_share(share, BlockTask(store.uri, self.spec, earlier))
                self.own_left, self.left = share.left()
            self.image_set.write_ledgers(self.spec.blocks, self._mended)
            why = ""
        finally:
            self._tell("end", note=why)

    def _count_committed(self) -> dict[int, BlockRecord]:
        """Count what is there; returns the records of the share's blocks that are to be drawn again."""
        lacking: dict[int, BlockRecord] = {}
        own, self.total = self.own, len(self.own)
        for record in self.image_set.records():
            if record.block >= self.spec.blocks:
                raise BadInput(f"{self.image_set.store.uri} has block {record.block} of {self.spec.blocks}")
            self._works |= record.lacking < record.draws
            if record.lacking and record.block in own and self.tries_again:
                lacking[record.block] = record
            else:
                self.done += record.block in own
        return lacking

    def _draw_share(self, share: Share, task: BlockTask) -> None:
        is_left = True
        while is_left:
            self._draw(share, task, share.blocks())
            self._draw_failed(share, task)
            is_left = share.wait()

    def _draw(self, share: Share, task: BlockTask, blocks: Iterable[int]) -> None:
        with closing(self.runtime.run(task, blocks)) as results:
            for result in results:
                if result.error is not None:
                    self._failed[result.block] = result.error
                    self._tell("note", note=f"block {result.block}: {result.error}")
                else:
                    share.done(result.block)
                    self._add(result.block, result.worker, result.result)

    def _add(self, block: int, worker: int, outcome: BlockOutcome) -> None:
        """Count a block and tell of it."""
        if block not in self._counted:
            self._counted.add(block)
            self.done += 1
            self.total += block not in self.own  # taken over from another driver
        record = outcome.record if outcome.committed else None
        if record:
            self._check_shared(record)
            self.committed += 1
            self._mended |= {block} if record.attempt else set()
            self.lacking += record.lacking
            self._works |= record.lacking < record.draws
            if not self.committed % BLOCKS_PER_GROUP:  # else readers list all done-records until the end
                self.image_set.write_ledgers(self.spec.blocks)
        self.monitor(
            SynthEvent(
                "block", self.done, self.total, block, worker, record=record, seconds=outcome.seconds
            )
        )

    def _check_shared(self, record: BlockRecord) -> None:
        """Refuse workers whose folder is another one of the same name: on the first block they commit."""
        store, name = self.image_set.store, record_name(record.block, record.attempt)
        if not self.committed and not store.exists(name):
            raise BadInput(
                f"a worker has committed block {record.block}, but there is no {store.where(name)} here: "
                "workers on other machines need a folder that all of them share, or a bucket"
            )

    def _tell(self, kind: Literal["start", "note", "end"], note: str = "") -> None:
        self.monitor(SynthEvent(kind, self.done, self.total, note=note))

    def _draw_failed(self, share: Share, task: BlockTask) -> None:
        """Blocks that failed too often: find the prompts at which they do, and draw the others."""
        failed, self._failed = self._failed, {}
        for block, error in sorted(failed.items()):
            if self.is_stopped():
                return  # they are tried again by the next start
            skipped = self._poison(block)
            rows = ", ".join(map(str, sorted(skipped))) or "none of them alone"
            self._tell("note", note=f"block {block} fails at the prompts of rows {rows}")
            alone = replace(task, skipped=skipped, one_by_one=True)
            self._draw(share, alone, [block])
            if self._failed.pop(block, None):  # not even then: all of it is recorded as failed
                none = replace(task, skipped=dict.fromkeys(self.spec.rows_of(block), error))
                self._draw(share, none, [block])

    def _poison(self, block: int) -> dict[int, str]:
        """Rows of a block whose prompts, drawn alone, end a worker or fail, each with the error.

        Raises:
            Incomplete: it is not the prompts': no draw of the set has ever come out.
        """
        task, found = PromptTask(self.image_set.store.uri, self.spec), dict[int, str]()
        with closing(self.runtime.run(task, self.spec.rows_of(block))) as results:
            for result in results:
                if result.error is None:
                    self._works = True
                else:
                    found[result.block] = result.error
                if not self._works and len(found) == HOPELESS:
                    raise Incomplete(
                        f"{HOPELESS} prompts, each drawn alone, failed, and no other has ever been drawn: "
                        f"{result.error}. Mend the engine, a judge or this machine, then start again"
                    )
        return found
