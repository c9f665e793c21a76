"""Stage: from prompts to generations, in worker processes, stored block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sar_eval.blocks import Event, Watch, ignore, make_blocks
from sar_eval.errors import SpecMismatch
from sar_eval.pool import Place, run_blocks
from sar_eval.prompts import load_suite
from sar_eval.provenance import git_commit, versions
from sar_eval.spec import JUDGED_BY, RunSpec, make_the_engine, pictured
from sar_eval.store import RunFolder, generation_row, row_generation, storing, write_json
from sar_eval.types import Draw, Generation

NO_PICTURE = "the engine gave no picture"
INTERRUPTED = "the engine broke before this picture"


def prepare(spec: RunSpec, folder: RunFolder) -> RunSpec:
    """Write `run.json` and the prompts on the first start, check them on a resume (lock held).

    A resume keeps the first start's batch size, so that blocks stay the same.

    Raises:
        SpecMismatch: the folder belongs to another spec.
    """
    if (folder.path / "run.json").exists():
        manifest = folder.read_manifest()
        if manifest["digest"] != spec.digest:
            written_by = manifest.get("versions", {}).get("sar_eval")
            changed = _differences(manifest["spec"], spec.to_json())
            raise SpecMismatch(
                f"{folder.path} holds a run with another spec ({changed or f'by sar-eval {written_by}'}): "
                "use another --out, or remove the folder to start again"
            )
        # Without a judge (`generate` again) the run keeps the one it has.
        judged = {name: getattr(spec, name) for name in JUDGED_BY} if spec.judge else {}
        judged |= {"engine_options": dict(spec.engine_options)}
        kept = RunSpec.from_json(manifest["spec"] | judged)
        if kept.to_json() != manifest["spec"]:
            write_json(folder.path / "run.json", manifest | {"spec": kept.to_json()})
        return kept
    folder.write_prompts(load_suite(Path(spec.suite)).prompts)
    manifest = {
        "spec": spec.to_json(),
        "digest": spec.digest,
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_json(folder.path / "run.json", manifest)
    return spec


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    ignored = (*JUDGED_BY, "batch_size", "suite", "checkpoint")
    old, new = (
        {**s, "engine_options": pictured(s.get("engine", ""), s.get("engine_options", {}))}
        for s in (old, new)
    )
    pairs = [(name, old.get(name), new.get(name)) for name in sorted(old | new) if name not in ignored]
    return ", ".join(f"{name}: {was!r} there, {now!r} asked" for name, was, now in pairs if was != now)


@dataclass(frozen=True, slots=True)
class GenerateTask:
    """What a worker does: draw the block, store it, tell how many pictures failed."""

    spec: RunSpec
    path: Path

    @contextmanager
    def open(self, place: Place) -> Iterator[Callable[[int], Any]]:
        """Load the engine once; blocks give (failed, seconds), maybe later (see `pool.Task`)."""
        folder = RunFolder(self.path)
        blocks = make_blocks(folder.read_prompts(), self.spec)
        _limit_threads(place)
        with make_the_engine(self.spec, place.device) as engine, ThreadPoolExecutor(1) as clerk:
            yield lambda block: _do_block(engine, folder, self.spec, block, blocks[block], clerk)


def _limit_threads(place: Place) -> None:
    import torch

    torch.set_num_threads(place.threads)


def _do_block(
    engine: Any, folder: RunFolder, spec: RunSpec, block: int, draws: Sequence[Draw], clerk: Executor
) -> Future[tuple[int, float]] | tuple[int, float]:
    """Draw what the block lacks; an engine that can `begin` is free again before all is stored."""
    stored = map(row_generation, folder.generations.block(block))
    kept = {g.key: g for g in stored if g.error is None}
    missing = [draw for draw in draws if draw.key not in kept]
    file = partial(_file, folder, spec, block, draws, kept)
    if not hasattr(engine, "begin"):
        return file(engine.generate(missing))
    waves: list[Future[list[Generation]]] = []
    try:
        waves.extend(engine.begin(missing))
    except Exception as error:  # noqa: BLE001 - raised by `file`, when it has stored what came before
        return file(_given(waves, error))
    return clerk.submit(file, _given(waves))


def _given(
    waves: Sequence[Future[list[Generation]]], broken: Exception | None = None
) -> Iterator[Generation]:
    for wave in waves:
        yield from wave.result()
    if broken is not None:
        raise broken


def _file(
    folder: RunFolder,
    spec: RunSpec,
    block: int,
    draws: Sequence[Draw],
    kept: dict[str, Generation],
    generations: Iterator[Generation],
) -> tuple[int, float]:
    """Store a block's pictures; if the engine breaks, those that it gave before."""
    found = dict(kept)
    try:
        for generation in generations:
            _take(found, generation)
    except Exception:
        if len(found) > len(kept):
            _store(folder, spec, block, draws, found | _failed(draws, found, INTERRUPTED))
        raise
    found |= _failed(draws, found, NO_PICTURE)
    _store(folder, spec, block, draws, found)
    done = found.values()
    return sum(g.error is not None for g in done), sum(g.elapsed_s for g in done)


def _take(found: dict[str, Generation], generation: Generation) -> None:
    if generation.key in found:
        raise ValueError(f"engine gave {generation.key} twice")
    silent = generation.image is None and generation.error is None
    found[generation.key] = replace(generation, error=NO_PICTURE) if silent else generation


def _failed(draws: Sequence[Draw], found: Mapping[str, Generation], error: str) -> dict[str, Generation]:
    return {d.key: Generation(d.key, d.seed, error=error) for d in draws if d.key not in found}


def _store(
    folder: RunFolder, spec: RunSpec, block: int, draws: Sequence[Draw], found: dict[str, Generation]
) -> None:
    rows = [generation_row(draw.prompt, found[draw.key], spec.digest) for draw in draws]
    folder.generations.write(block, rows)


def _store_failure(folder: RunFolder, spec: RunSpec, block: int, draws: Sequence[Draw], error: str) -> int:
    """Store an error for every draw that has no picture from an earlier start; returns how many."""
    stored = [row_generation(row) for row in folder.generations.block(block)]
    found = {g.key: g for g in stored if g.error is None}
    missing = _failed(draws, found, error)
    _store(folder, spec, block, draws, found | missing)
    return len(missing)


def generate(
    spec: RunSpec, folder: RunFolder, places: Sequence[Place], watch: Watch = ignore
) -> list[list[Draw]]:
    """Make what is missing (lock held, `prepare`d) and return the run's blocks.

    A block that keeps failing is stored with its error, so the run ends incomplete, not dead.

    Raises:
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    blocks = make_blocks(folder.read_prompts(), spec)
    with storing(folder.path):
        damaged = folder.generations.clean()
    finished = folder.generations.finished({i: {d.key for d in b} for i, b in enumerate(blocks)})
    total, done, failed = sum(map(len, blocks)), sum(len(blocks[i]) for i in finished), 0
    watch(Event("generate", done, total))
    for path in damaged:
        watch(Event("generate", done, total, note=f"damaged part {path.name} will be made again"))
    missing = [i for i in range(len(blocks)) if i not in finished]
    with closing(run_blocks(GenerateTask(spec, folder.path), missing, places)) as outcomes:
        for outcome in outcomes:
            draws, note = blocks[outcome.block], ""
            if outcome.error is not None:
                failed += _store_failure(folder, spec, outcome.block, draws, outcome.error)
                note = f"block {outcome.block}: {outcome.error}"
            else:
                failed += outcome.result[0]
            done += len(draws)
            watch(Event("generate", done, total, failed, outcome.worker, len(draws), note))
    return blocks
