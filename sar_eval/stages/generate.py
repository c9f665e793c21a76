"""Stage: from prompts to generations, in worker processes, stored block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sar_eval.provenance import versions
from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent, no_progress
from sar_eval.runtime.runtimes import Runtime
from sar_eval.runtime.slots import WorkerSlot, limit_threads
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import build_engine
from sar_eval.stages.resume import is_drawn, open_blocks, spec_digests, unfinished_blocks
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_from_row, generation_row
from sar_eval.types import Draw, Generation, Json

NO_IMAGE = "the engine gave no image"
INTERRUPTED = "the engine broke before this image"


def generate(
    spec: RunSpec,
    folder: RunFolder,
    runtime: Runtime,
    progress: ProgressCallback = no_progress,
    stop: int | None = None,
) -> None:
    """Make what is missing (lock held, `prepare`d), of the blocks before `stop` if that is given.

    A block that keeps failing is stored with its error, so the run ends incomplete, not dead.

    Raises:
        SpecMismatch: the folder holds generations of another run.
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    blocks = open_blocks(spec, folder)
    among = blocks.numbers[:stop]
    total = sum(map(blocks.draws_in, among))
    todo = undrawn_blocks("generate", spec, folder, blocks, progress, "made", among)
    done, failed = total - sum(map(blocks.draws_in, todo)), 0
    with closing(runtime.run(GenerateTask(spec, folder.path), todo)) as results:
        for result in results:
            drawn, note = blocks.draws_in(result.block), ""
            if result.error is not None:
                writer = BlockWriter(spec, folder, result.block, blocks[result.block], made_by(spec))
                failed += writer.store_failure(result.error)
                note = f"block {result.block}: {result.error}"
            else:
                failed += result.result[0]
            done += drawn
            progress(ProgressEvent("generate", done, total, failed, result.worker, drawn, note))


def undrawn_blocks(
    stage: str,
    spec: RunSpec,
    folder: RunFolder,
    blocks: Blocks,
    progress: ProgressCallback,
    redo: str,
    among: range | None = None,
) -> list[int]:
    """Numbers of the blocks that lack generations (see `stages.resume.unfinished_blocks`)."""
    table = folder.generations
    digests = spec_digests(spec, folder)
    finished = is_drawn(table, blocks, digests)
    return unfinished_blocks(
        stage, table, blocks, blocks.numbers if among is None else among, finished, progress, redo
    )


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """What a worker does: draw the block, store it, return how many images failed."""

    spec: RunSpec
    path: Path

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], Any]]:
        """Load the engine once; blocks give (failed, seconds), maybe later (see `runtimes.Task`)."""
        folder = RunFolder(self.path)
        blocks = open_blocks(self.spec, folder)
        origin = made_by(self.spec, slot.device)
        with build_engine(self.spec, slot.device) as engine, ThreadPoolExecutor(1) as executor:
            limit_threads(slot)

            def run_block(block: int) -> Any:
                writer = BlockWriter(self.spec, folder, block, blocks[block], origin)
                return _draw_block(engine, writer, executor)

            yield run_block


def made_by(spec: RunSpec, device: str = "") -> dict[str, Json]:
    """What every row of a worker was made with; the engine adds what it knows better."""
    engine = {"engine": spec.engine, "engine_version": spec.engine_version, "versions": versions()}
    return engine | ({"device": device} if device else {})


def begins_ahead(engine: Any) -> bool:
    """Whether to call the engine's `begin`: not if a subclass of its class overrides `generate` alone."""
    for owner in type(engine).__mro__:
        if "begin" in vars(owner):
            return True
        if "generate" in vars(owner):
            return False
    return False


def _draw_block(
    engine: Any, writer: BlockWriter, executor: Executor
) -> Future[tuple[int, float]] | tuple[int, float]:
    """Draw what the block lacks; an engine that can `begin` is free again before all is stored."""
    missing = writer.missing()
    if not begins_ahead(engine):
        return writer.store(engine.generate(missing))
    waves: list[Future[list[Generation]]] = []
    try:
        waves.extend(engine.begin(missing))
    except Exception as error:  # noqa: BLE001 - raised by `store`, when what came before is stored
        return writer.store(_results(waves, error))
    return executor.submit(partial(writer.store, _results(waves)))


def _results(
    waves: Sequence[Future[list[Generation]]], failure: Exception | None = None
) -> Iterator[Generation]:
    for wave in waves:
        yield from wave.result()
    if failure is not None:
        raise failure


class BlockWriter:
    """Stores the generations of one block; images of an earlier start stay."""

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        block: int,
        draws: Sequence[Draw],
        made_by: Mapping[str, Json] | None = None,
    ) -> None:
        """`made_by`: provenance of the new rows."""
        self.spec, self.folder, self.block, self.draws = spec, folder, block, draws
        self.made_by = made_by or {}
        seeds = {draw.key: draw.seed for draw in draws}
        stored = map(generation_from_row, folder.generations.read_block(block))
        self.kept = {g.key: g for g in stored if g.error is None and seeds.get(g.key) == g.seed}

    def missing(self) -> list[Draw]:
        """Draws without an image from an earlier start."""
        return [draw for draw in self.draws if draw.key not in self.kept]

    def store(self, generations: Iterator[Generation]) -> tuple[int, float]:
        """Store the block and return (failed, seconds); if the engine breaks, what it gave before.

        Raises:
            ValueError: a draw was given twice.
            Exception: what the engine raised.
        """
        found = dict(self.kept)
        try:
            for generation in generations:
                self._add(found, generation)
        except Exception:
            if len(found) > len(self.kept):
                self._write(found | self._failed(found, INTERRUPTED))
            raise
        found |= self._failed(found, NO_IMAGE)
        self._write(found)
        return sum(g.error is not None for g in found.values()), sum(g.elapsed_s for g in found.values())

    def store_failure(self, error: str) -> int:
        """Store an error for every draw that has no image from an earlier start; returns how many."""
        missing = self._failed(self.kept, error)
        self._write(self.kept | missing)
        return len(missing)

    def _add(self, found: dict[str, Generation], generation: Generation) -> None:
        if generation.key in found:
            raise ValueError(f"engine gave {generation.key} twice")
        has_no_result = generation.image is None and generation.error is None
        error = NO_IMAGE if has_no_result else generation.error
        provenance = {**self.made_by, **generation.provenance}
        found[generation.key] = replace(generation, error=error, provenance=provenance)

    def _failed(self, found: Mapping[str, Generation], error: str) -> dict[str, Generation]:
        return {
            d.key: Generation(d.key, d.seed, error=error, provenance=self.made_by)
            for d in self.draws
            if d.key not in found
        }

    def _write(self, found: Mapping[str, Generation]) -> None:
        rows = [generation_row(draw.prompt, found[draw.key], self.spec.digest) for draw in self.draws]
        self.folder.write_generations(self.block, rows, self.spec.digest)
