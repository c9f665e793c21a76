"""The driver of a synthesis: which blocks are left, and what is done about one that cannot be drawn.

Whatever is stopped at any moment, by whatever means, goes on with the same command: all state is in the
store, and a block is there or it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

from sar_eval.errors import BadInput
from sar_eval.runtime.runtimes import Runtime
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.block import BlockOutcome, BlockTask, PromptTask
from sar_eval.synthesis.monitor import Monitor, SynthEvent, no_monitor
from sar_eval.synthesis.spec import SetSpec


@dataclass
class Driver:
    """Draws what a set, or one share of it, lacks.

    Attributes:
        image_set: begun, see `begin_set`.
        spec: of the set.
        runtime: where workers run.
        monitor: told of every step.
        done, total: blocks of this driver that are whole, and all of them.
    """

    image_set: ImageSet
    spec: SetSpec
    runtime: Runtime
    monitor: Monitor = no_monitor
    done: int = 0
    total: int = 0
    _failed: dict[int, str] = field(default_factory=dict)
    _committed: set[int] = field(default_factory=set)
    _share: range = range(0)

    def run(self, share: range | None = None, blocks: Iterable[int] | None = None) -> None:
        """Draw the blocks that are not there as a whole.

        Args:
            share: numbers of the blocks that are this driver's; all by default.
            blocks: those to draw, pulled one by one when a worker is free (as a share that steals from
                others gives them); by default those of the share that are not there.

        Raises:
            SarEvalError: a fault that more tries cannot mend; what is committed stays.
        """
        share = range(self.spec.blocks) if share is None else share
        whole, lacking = self._committed_before(share)
        self._share = share
        self.total, self.done = len(share), sum(whole[block] for block in share)
        self._tell("start")
        todo = (block for block in share if not whole[block]) if blocks is None else iter(blocks)
        why = "interrupted"
        try:
            self._draw(BlockTask(self.image_set.store.uri, self.spec, lacking), todo)
            self._draw_failed(lacking)
            self.image_set.write_ledgers(self.spec.blocks)
            why = ""
        finally:
            self._tell("end", note=why)

    def _committed_before(self, share: range) -> tuple[bytearray, dict[int, BlockRecord]]:
        """By block whether it is there as a whole; and the share's records that lack draws."""
        whole, lacking = bytearray(self.spec.blocks), dict[int, BlockRecord]()
        for record in self.image_set.records():
            if record.block >= self.spec.blocks:
                raise BadInput(f"{self.image_set.store.uri} has block {record.block} of {self.spec.blocks}")
            whole[record.block] = not record.lacking
            if record.lacking and record.block in share:
                lacking[record.block] = record
        return whole, lacking

    def _draw(self, task: BlockTask, blocks: Iterator[int]) -> None:
        with closing(self.runtime.run(task, blocks)) as results:
            for result in results:
                if result.error is None:
                    self._add(result.block, result.worker, result.result)
                else:
                    self._failed[result.block] = result.error
                    self._tell("note", note=f"block {result.block}: {result.error}")

    def _add(self, block: int, worker: int, outcome: BlockOutcome) -> None:
        """Count a block and tell of it."""
        if block not in self._committed:
            self._committed.add(block)
            self.done += 1
            self.total += block not in self._share  # taken over from another driver's
        record = outcome.record if outcome.committed else None
        self.monitor(
            SynthEvent(
                "block", self.done, self.total, block, worker, record=record, seconds=outcome.seconds
            )
        )

    def _tell(self, kind: str, note: str = "") -> None:
        self.monitor(SynthEvent(kind, self.done, self.total, note=note))  # type: ignore[arg-type]

    def _draw_failed(self, lacking: dict[int, BlockRecord]) -> None:
        """Blocks that failed too often: find the prompts at which they do, and draw the others."""
        for block, error in sorted(self._failed.items()):
            skipped = self._poison(block)
            names = ", ".join(map(str, skipped)) or "none alone"
            self._tell("note", note=f"block {block}: it fails at the prompts of rows {names}")
            task = BlockTask(self.image_set.store.uri, self.spec, lacking, skipped, chunk_prompts=1)
            self._failed = {}
            self._draw(task, iter([block]))
            if self._failed:  # not even then: all of it is recorded as failed
                task = replace(task, skipped=dict.fromkeys(self.spec.rows_of(block), error))
                self._draw(task, iter([block]))

    def _poison(self, block: int) -> dict[int, str]:
        """Rows of a block whose prompts, drawn alone, end a worker or fail, each with the error."""
        task = PromptTask(self.image_set.store.uri, self.spec)
        with closing(self.runtime.run(task, iter(self.spec.rows_of(block)))) as results:
            return {result.block: result.error for result in results if result.error is not None}
