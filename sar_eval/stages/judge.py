"""Stage: from generations to verdicts, in worker processes, stored block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.errors import BadInput, SarEvalError
from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent, no_progress
from sar_eval.runtime.runtimes import Runtime
from sar_eval.runtime.slots import WorkerSlot, limit_threads
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import build_judge
from sar_eval.stages.resume import (
    check_blocks,
    check_keys,
    check_spec,
    is_judged,
    open_blocks,
    spec_digests,
    unfinished_blocks,
)
from sar_eval.storage.parts import Part, PartTable
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_from_row, verdict_from_row, verdict_row
from sar_eval.types import Draw, Generation, Prompt, Verdict, checked_verdict


def judge(
    spec: RunSpec, folder: RunFolder, runtime: Runtime, progress: ProgressCallback = no_progress
) -> None:
    """Judge every stored generation that has no verdict yet (lock held).

    Raises:
        BadInput: the folder's verdicts were given under other judge options.
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    blocks = open_blocks(spec, folder)
    drawn = folder.generations.parts()
    check_generations(spec, folder, drawn, blocks)
    finished = is_judged(spec, folder, drawn)
    todo = unfinished_blocks(
        "judge", folder.verdicts(spec.verdict_table), blocks, drawn, finished, progress, "judged"
    )
    total = sum(map(blocks.draws_in, drawn))
    done, failed = total - sum(map(blocks.draws_in, todo)), 0
    with closing(runtime.run(JudgeTask(spec, folder.path), todo)) as results:
        for result in results:
            size, note = blocks.draws_in(result.block), ""
            if result.error is not None:
                failed += _store_failure(spec, folder, result.block, result.error)
                note = f"block {result.block}: {result.error}"
            else:
                failed += result.result[1]
            done += size
            progress(ProgressEvent("judge", done, total, failed, result.worker, size, note))


def check_generations(spec: RunSpec, folder: RunFolder, parts: Mapping[int, Part], blocks: Blocks) -> None:
    """Refuse generations of another run, from the parts' footers.

    Raises:
        SpecMismatch: naming the part.
    """
    digests = spec_digests(spec, folder)
    check_blocks(parts.values(), blocks)
    for part in parts.values():
        check_spec(part, folder.generations.facts(part), digests)


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """What a worker does: judge a stored block, store its verdicts, return how many have none."""

    spec: RunSpec
    path: Path

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], tuple[int, int]]]:
        """Load the judge once; blocks give (verdicts, how many of them are errors)."""
        folder = RunFolder(self.path)
        blocks = open_blocks(self.spec, folder)
        with build_judge(self.spec, slot.device) as judge:
            limit_threads(slot)
            yield lambda block: _judge_block(judge, folder, self.spec, block, blocks[block])


def _judge_block(
    judge: Any, folder: RunFolder, spec: RunSpec, block: int, draws: Sequence[Draw]
) -> tuple[int, int]:
    """Judge what has no verdict from an earlier start or try; verdicts are kept if the judge then fails."""
    part = _stored_part(folder, block)
    rows, images = folder.generations.read(part.path).to_pylist(), _images(folder, part)
    check_keys(part, [row["key"] for row in rows], [draw.key for draw in draws])
    items = [(draw.prompt, generation_from_row(row)) for draw, row in zip(draws, rows, strict=True)]
    drawn = [(prompt, generation) for prompt, generation in items if generation.error is None]
    found = _stored_verdicts(folder.verdicts(spec.verdict_table), block, images)
    failure = _collect_verdicts(judge, [item for item in drawn if item[1].key not in found], found)
    for _, generation in items:
        why = "the judge gave no verdict" if failure is None else _describe(failure)
        why = f"not drawn: {generation.error}" if generation.error else why
        missing = Verdict(generation.key, spec.judge, judge.version, error=why)
        found.setdefault(generation.key, missing)
    errors = _store(spec, folder, part, [found[row["key"]] for row in rows], images)
    if failure is not None:
        raise failure
    return len(rows), errors


def _stored_part(folder: RunFolder, block: int) -> Part:
    part = folder.generations.part(block)
    if part is None:
        raise BadInput(
            f"{folder.generations.folder} has lost block {block}: run the command that drew it again"
        )
    return part


def _images(folder: RunFolder, part: Part) -> dict[str, str | None]:
    """The digest of each image of a block, by draw key; only of draws that have one."""
    table = folder.generations
    rows = table.read(part.path, ["key", "error"]).to_pylist()
    digests = table.image_digests(part, len(rows))
    return {row["key"]: digest for row, digest in zip(rows, digests, strict=True) if row["error"] is None}


def _store(
    spec: RunSpec,
    folder: RunFolder,
    source: Part,
    verdicts: Sequence[Verdict],
    images: Mapping[str, str | None],
) -> int:
    """Store a block's verdicts, each with the digest of its image; returns how many are errors."""
    rows = [verdict_row(verdict, spec.judge_digest, images.get(verdict.key)) for verdict in verdicts]
    folder.write_verdicts(spec.verdict_table, source.block, rows, spec.judge_digest, source)
    return sum(verdict.error is not None for verdict in verdicts)


def _stored_verdicts(table: PartTable, block: int, images: Mapping[str, str | None]) -> dict[str, Verdict]:
    """Stored verdicts without an error on these images."""
    stored = (row for row in table.read_block(block) if row["error"] is None and row["key"] in images)
    return {
        row["key"]: verdict_from_row(row) for row in stored if row["image_digest"] == images[row["key"]]
    }


def _collect_verdicts(
    judge: Any, items: Sequence[tuple[Prompt, Generation]], found: dict[str, Verdict]
) -> Exception | None:
    """Put the judge's verdicts into `found`; returns the error with which it failed midway, if any."""
    verdicts = iter(judge.judge(items))
    while True:
        try:
            verdict = next(verdicts, None)
        except Exception as error:  # noqa: BLE001 - raised again as soon as the verdicts are stored
            return error
        if verdict is None:
            return None
        if verdict.key in found:
            raise ValueError(f"judge gave {verdict.key} twice")
        found[verdict.key] = checked_verdict(verdict)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, SarEvalError) else f"{type(error).__name__}: {error}"


def _store_failure(spec: RunSpec, folder: RunFolder, block: int, error: str) -> int:
    """Store an error for every image that has no verdict from an earlier start; returns how many."""
    part = _stored_part(folder, block)
    keys = folder.generations.read(part.path, ["key"]).column("key").to_pylist()
    images = _images(folder, part)
    found = _stored_verdicts(folder.verdicts(spec.verdict_table), block, images)
    verdicts = [found.get(key) or Verdict(key, spec.judge, "", error=error) for key in keys]
    return _store(spec, folder, part, verdicts, images)
