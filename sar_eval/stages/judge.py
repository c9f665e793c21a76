"""Stage: from generations to verdicts, in worker processes, stored block by block."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sar_eval.errors import SarEvalError
from sar_eval.runtime.blocks import make_blocks
from sar_eval.runtime.local import run_blocks
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent, no_progress
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import build_judge
from sar_eval.stages.resume import check_verdicts, unfinished_blocks
from sar_eval.storage.run_folder import PartTable, RunFolder
from sar_eval.storage.schemas import generation_from_row, verdict_from_row, verdict_row
from sar_eval.types import Generation, Prompt, Verdict


def judge(
    spec: RunSpec, folder: RunFolder, slots: Sequence[WorkerSlot], progress: ProgressCallback = no_progress
) -> None:
    """Judge every stored generation that has no verdict yet (lock held).

    Raises:
        BadInput: the folder's verdicts were given under other judge options.
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    blocks = make_blocks(folder.read_prompts(), spec)
    stored = set(folder.generations.stored_blocks())
    todo = unfinished_blocks("judge", folder.verdicts(spec.judge), blocks, stored, progress, "judged")
    check_verdicts(spec, folder)  # now that damaged parts are gone
    total = sum(len(blocks[i]) for i in stored)
    done, failed = total - sum(len(blocks[i]) for i in todo), 0
    with closing(run_blocks(JudgeTask(spec, folder.path), todo, slots)) as results:
        for result in results:
            size, note = len(blocks[result.block]), ""
            if result.error is not None:
                failed += _store_failure(spec, folder, result.block, result.error)
                note = f"block {result.block}: {result.error}"
            else:
                failed += result.result[1]
            done += size
            progress(ProgressEvent("judge", done, total, failed, result.worker, size, note))


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """What a worker does: judge a stored block, store its verdicts, return how many have none."""

    spec: RunSpec
    path: Path

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], tuple[int, int]]]:
        """Load the judge once; blocks give (verdicts, how many of them are errors)."""
        folder = RunFolder(self.path)
        prompts = {prompt.id: prompt for prompt in folder.read_prompts()}
        with build_judge(self.spec, slot.device) as judge:
            _limit_threads(slot)
            yield lambda block: _judge_block(judge, folder, self.spec, block, prompts)


def _limit_threads(slot: WorkerSlot) -> None:
    """Give a judge that uses torch its share of the cores (others need not load it for that)."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(slot.threads)


def _judge_block(
    judge: Any, folder: RunFolder, spec: RunSpec, block: int, prompts: dict[str, Prompt]
) -> tuple[int, int]:
    """Judge what has no verdict from an earlier start or try; verdicts are kept if the judge then fails."""
    rows, table = folder.generations.read_block(block), folder.verdicts(spec.judge)
    items = [(prompts[row["prompt_id"]], generation_from_row(row)) for row in rows]
    drawn = [(prompt, generation) for prompt, generation in items if generation.error is None]
    found = _stored_verdicts(table, block, {generation.key for _, generation in drawn})
    failure = _collect_verdicts(judge, [item for item in drawn if item[1].key not in found], found)
    for _, generation in items:
        why = "the judge gave no verdict" if failure is None else _describe(failure)
        why = f"not drawn: {generation.error}" if generation.error else why
        missing = Verdict(generation.key, spec.judge, judge.version, error=why)
        found.setdefault(generation.key, missing)
    verdicts = [found[row["key"]] for row in rows]
    table.write(block, [verdict_row(v, spec.judge_digest) for v in verdicts])
    if failure is not None:
        raise failure
    return len(verdicts), sum(v.error is not None for v in verdicts)


def _stored_verdicts(table: PartTable, block: int, keys: set[str]) -> dict[str, Verdict]:
    """Stored verdicts without an error on these keys."""
    rows = (row for row in table.read_block(block) if row["error"] is None and row["key"] in keys)
    return {row["key"]: verdict_from_row(row) for row in rows}


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
        found[verdict.key] = _scored(verdict)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, SarEvalError) else f"{type(error).__name__}: {error}"


def _scored(verdict: Verdict) -> Verdict:
    """A verdict with a score that is a number, or with an error: nothing leaves the mean in silence."""
    if verdict.error is not None:
        return replace(verdict, score=None, passed=None)
    if verdict.score is None and verdict.passed is not None:
        return replace(verdict, score=float(verdict.passed))
    if verdict.score is None:
        return replace(verdict, error="the judge gave no score")
    if not math.isfinite(verdict.score):
        return replace(verdict, score=None, passed=None, error=f"the judge's score is {verdict.score}")
    return verdict


def _store_failure(spec: RunSpec, folder: RunFolder, block: int, error: str) -> int:
    """Store an error for every image that has no verdict from an earlier start; returns how many."""
    table = folder.verdicts(spec.judge)
    keys = [row["key"] for row in folder.generations.read_block(block, ["key"])]
    found = _stored_verdicts(table, block, set(keys))
    verdicts = [found.get(key) or Verdict(key, spec.judge, "", error=error) for key in keys]
    table.write(block, [verdict_row(v, spec.judge_digest) for v in verdicts])
    return sum(v.error is not None for v in verdicts)
