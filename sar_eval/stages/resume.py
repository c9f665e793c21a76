"""Where resume is decided: whether a run folder belongs to this spec, and which of its blocks are left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.provenance import git_commit, versions
from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent
from sar_eval.spec import JUDGING, NOT_IN_DIGEST, RunSpec, without
from sar_eval.storage.files import storage_errors
from sar_eval.storage.manifest import Manifest, Stop, StoredPrompts
from sar_eval.storage.parts import Part, PartTable
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import PartFacts
from sar_eval.suites.prompts import Suite, load_suite
from sar_eval.suites.streamed import StreamedPrompts, stored_prompts
from sar_eval.types import DrawingOrder, Json, Shard

CHANGED = "was changed after sar-eval wrote it"
FOREIGN = "it belongs to another run; move it away, or use another --out"


def open_blocks(spec: RunSpec, folder: RunFolder) -> Blocks:
    """The blocks that a run folder is for.

    Raises:
        BadInput: its prompts are damaged or were changed.
    """
    manifest = folder.read_manifest()
    return Blocks.of(stored_prompts(folder), spec, manifest.shard, manifest.order)


def prepare(
    spec: RunSpec, folder: RunFolder, shard: Shard | None = None, order: DrawingOrder | None = None
) -> RunSpec:
    """Write `run.json` and the prompts on the first start, check them on a resume (lock held).

    A resume keeps the first start's batch size, so that blocks stay the same (see `kept_settings`), and
    its order of drawing; `order` is that of a sequential run, which needs the same one again.

    Raises:
        BadInput: the folder holds parts without a `run.json`, or prompts that are not the run's.
        SpecMismatch: the folder belongs to another spec.
    """
    if not (folder.path / "run.json").exists():
        return _begin(spec, folder, shard, order)
    manifest = folder.read_manifest()
    stored = RunSpec.from_json(manifest.spec, str(folder.path / "run.json"))
    changed = _differences(stored, spec)
    # Version 0.1.0 left more options of other people's engines out of the digest.
    earlier = "engine_speed_options" not in manifest.spec
    if manifest.digest != spec.digest and (changed or not earlier):
        written_by = manifest.versions.get("sar_eval")
        raise SpecMismatch(
            f"{folder.path} holds a run with another spec ({changed or f'by sar-eval {written_by}'}): "
            "use another --out, or remove the folder to start again"
        )
    if shard is not None and shard != manifest.shard:
        there = f"shard {manifest.shard}" if manifest.shard else "a whole run"
        raise SpecMismatch(
            f"{folder.path} holds {there}, not shard {shard}: each shard has a folder of its own"
        )
    if order is not None and order != manifest.order:
        raise SpecMismatch(_other_order(folder, manifest.order))
    kept = _kept(stored, spec)
    check_files(kept, spec.files.values(), folder)
    if not spec.judge:
        check_manifest(folder)  # what it says of judge and fold is kept
    if kept.judge_digest != stored.judge_digest:
        _check_verdicts(kept, folder)
    _write_changes(kept, manifest, folder)
    _restore_prompts(spec, folder)
    return kept


def _other_order(folder: RunFolder, order: DrawingOrder | None) -> str:
    if order is None:
        return (
            f"{folder.path} holds a run in the order of its suite, but --sequential draws prompts at "
            "random: use another --out (or `sar-eval gate` on the finished run)"
        )
    return f"{folder.path} holds a sequential run in another order ({order}): use another --out"


def _begin(spec: RunSpec, folder: RunFolder, shard: Shard | None, order: DrawingOrder | None) -> RunSpec:
    """First start. Parts that are there already are of a run that nobody knows."""
    if folder.holds_parts():
        raise BadInput(
            f"{folder.path} holds parts of a run, but no run.json that says of which one: restore it, or "
            "use another --out"
        )
    prompts = _store(load_suite(Path(spec.suite)), folder)
    folder.write_manifest(
        Manifest(
            spec=spec.to_json(),
            digest=spec.digest,
            versions=versions(),
            git_commit=git_commit(),
            prompts=prompts,
            shard=shard,
            order=order,
        )
    )
    return spec


def _kept(stored: RunSpec, spec: RunSpec) -> RunSpec:
    """The stored spec with what may change: the judge, and options that no image depends on."""
    # Without a judge (`generate` again) the run keeps the one it has.
    judging = {name: getattr(spec, name) for name in JUDGING} if spec.judge else {}
    engine = {name: getattr(spec, name) for name in ("engine_options", "engine_speed_options")}
    return replace(stored, **judging, **engine)


def check_manifest(folder: RunFolder) -> None:
    """Refuse a `run.json` that somebody changed: judge, fold and names are in no other digest.

    Raises:
        BadInput: it is not what sar-eval wrote.
    """
    if not folder.manifest_is_intact():
        raise BadInput(
            f"{folder.path / 'run.json'} {CHANGED}: restore it, or name judge and fold again by --benchmark"
        )


def _check_verdicts(spec: RunSpec, folder: RunFolder) -> None:
    """Refuse new judge options before `run.json` has them, if verdicts are there that others gave."""
    table = folder.verdicts(spec.verdict_table)
    for part in table.parts().values():
        check_judge(spec, table, table.facts(part))


def _write_changes(kept: RunSpec, manifest: Manifest, folder: RunFolder) -> None:
    if kept.to_json() == manifest.spec and folder.manifest_is_intact():
        return
    earlier = manifest.earlier_digests
    if kept.digest != manifest.digest:  # by an earlier version, of the same spec: its parts stay
        earlier = tuple(dict.fromkeys((*earlier, manifest.digest)))
    changed = replace(manifest, spec=kept.to_json(), digest=kept.digest, earlier_digests=earlier)
    folder.write_manifest(changed)


def _restore_prompts(spec: RunSpec, folder: RunFolder) -> None:
    """Write the prompts again if they are damaged and the prompt file is still the same."""
    try:
        stored_prompts(folder)
    except BadInput:
        suite = load_suite(Path(spec.suite))
        if suite.digest != spec.suite_digest:
            raise
        prompts = _store(suite, folder)
        folder.write_manifest(replace(folder.read_manifest(), prompts=prompts))


def _store(suite: Suite, folder: RunFolder) -> StoredPrompts:
    """Copy the prompts into the run folder; many millions stay in their file."""
    if isinstance(suite.prompts, StreamedPrompts):
        source = str(suite.prompts.path.resolve())
        return StoredPrompts(digest=suite.digest, number=len(suite.prompts), source=source)
    return folder.write_prompts(suite.prompts)


def check_files(spec: RunSpec, named: Collection[str], folder: RunFolder) -> None:
    """Refuse to run files that a run folder names, unless this command names them itself.

    Args:
        spec: the run's.
        named: names that this command was given.
        folder: of the run, for the message.

    Raises:
        BadInput: naming the file and the flag that allows it.
    """
    for field, name in spec.files.items():
        if name not in named:
            raise BadInput(
                f"{folder.path / 'run.json'} names the {field} {name!r}, which is code and would be run: "
                "if you trust it, name it again on the command line, by --benchmark RECIPE.toml, "
                "--judge FILE.py:NAME or --scorers FILE.py:NAME"
            )


def check_secret(spec: RunSpec, named: Mapping[str, Json], folder: RunFolder) -> None:
    """Refuse to send a key to where a run folder says, unless this command names its variable itself.

    Args:
        spec: the run's.
        named: judge options that this command was given.
        folder: of the run, for the message.

    Raises:
        BadInput: naming the variable and the server.
    """
    variable = spec.judge_options.get("api_key_env")
    if variable and variable != named.get("api_key_env"):
        raise BadInput(
            f"{folder.path / 'run.json'} says to send what is in {variable} to "
            f"{spec.judge_options.get('url')}: if you trust it, name it again, by "
            f"--judge-option api_key_env={variable}"
        )


def kept_settings(asked_batch_size: int | None, kept: RunSpec) -> list[str]:
    """What a resumed run does otherwise than it was asked to, in sentences."""
    if asked_batch_size in (None, kept.batch_size):
        return []
    note = (
        f"the batch size stays {kept.batch_size}, with which this run was begun ({asked_batch_size} was "
        "asked for): its stored blocks are of that size; another --out begins anew"
    )
    return [note]


def unfinished_blocks(
    stage: str,
    table: PartTable,
    blocks: Blocks,
    among: Collection[int],
    finished: Callable[[Part], bool],
    progress: ProgressCallback,
    redo: str,
) -> list[int]:
    """Numbers of the blocks that are not `finished`; reports what is stored.

    Temporary files and damaged parts are removed first. The footers of the parts are read, not their
    rows, so the cost is that of the number of parts, whatever is in them.

    Args:
        stage: its name, for `progress`.
        table: where the stage stores its parts.
        blocks: all of the run.
        among: the blocks that the stage is to do.
        finished: whether a part is whole, without errors, and of this run.
        progress: gets the state at the start, and a note for every damaged part.
        redo: what will be done to a damaged part ("made", "judged").

    Raises:
        BadInput: a part cannot be read, or is of another run.
        StorageFailed: the disk is full or read-only.
    """
    with storage_errors(table.folder.parent):
        damaged = table.clean()
    parts = table.parts()
    check_blocks(parts.values(), blocks)
    done_blocks = {i for i, part in parts.items() if i in among and finished(part)}
    done, total = (sum(map(blocks.draws_in, some)) for some in (done_blocks, among))
    progress(ProgressEvent(stage, done, total))
    for path in damaged:
        progress(ProgressEvent(stage, done, total, note=f"damaged part {path.name} will be {redo} again"))
    return [i for i in sorted(among) if i not in done_blocks]


def stopped(folder: RunFolder, drawn: Collection[int]) -> Stop | None:
    """Where a sequential run stopped on purpose; None if it did not, or if blocks were drawn after it."""
    stop = folder.read_manifest().stop
    return stop if stop is not None and max(drawn, default=-1) < stop.blocks else None


def wanted_blocks(blocks: Blocks, stop: Stop | None) -> range:
    """Numbers of the blocks that a run is to have: all, unless it stopped on purpose."""
    return blocks.numbers if stop is None else blocks.numbers[: stop.blocks]


def check_blocks(parts: Iterable[Part], blocks: Blocks) -> None:
    """Refuse parts of blocks that the run does not have.

    Raises:
        SpecMismatch: naming the part.
    """
    for part in parts:
        if part.block >= len(blocks):
            raise SpecMismatch(
                f"{part.path} is of block {part.block}, but the run has {len(blocks)}: {FOREIGN}"
            )


def is_drawn(table: PartTable, blocks: Blocks, digests: Collection[str]) -> Callable[[Part], bool]:
    """Whether a part of generations is whole and without errors.

    Args:
        table: of generations.
        blocks: of the run.
        digests: of the run's spec, those of earlier versions included.

    Raises (when called):
        SpecMismatch: it was drawn for another spec.
    """

    def whole(part: Part) -> bool:
        facts = table.facts(part)
        check_spec(part, facts, digests)
        return facts.errors == 0 and facts.rows == blocks.draws_in(part.block)

    return whole


def spec_digests(spec: RunSpec, folder: RunFolder) -> set[str]:
    """What the run's generations were drawn for: the spec, also as earlier versions made its digest."""
    return {spec.digest, *folder.read_manifest().earlier_digests}


def check_spec(part: Part, facts: PartFacts, digests: Collection[str]) -> None:
    """Refuse generations of another run.

    Raises:
        SpecMismatch: naming the part.
    """
    if facts.made_for not in digests:
        raise SpecMismatch(
            f"{part.path} was drawn for the spec {facts.made_for}, not for this run's: {FOREIGN}"
        )


def check_keys(part: Part, keys: Sequence[str], expected: Sequence[str]) -> None:
    """Refuse rows of other draws than the block's.

    Raises:
        BadInput: naming the part and the first wrong key.
    """
    if list(keys) == list(expected):
        return
    pairs = zip_longest(keys, expected, fillvalue="none")
    key, wanted = next(pair for pair in pairs if pair[0] != pair[1])
    raise BadInput(f"{part.path} has a row {shorten(key)} where {wanted} belongs: {FOREIGN}")


def is_judged(spec: RunSpec, folder: RunFolder, generations: Mapping[int, Part]) -> Callable[[Part], bool]:
    """Whether a part of verdicts is whole, without errors, and on the images that are stored.

    Raises (when called):
        BadInput: the verdicts were given under other judge options or by another version.
    """
    table, drawn = folder.verdicts(spec.verdict_table), folder.generations

    def whole(part: Part) -> bool:
        facts, source = table.facts(part), generations.get(part.block)
        check_judge(spec, table, facts)
        if source is None or not is_tied(part, facts, source):
            return False
        return facts.errors == 0 and facts.rows == drawn.facts(source).rows

    return whole


def check_judge(spec: RunSpec, table: PartTable, facts: PartFacts) -> None:
    """Refuse verdicts that were given under other judge options or by another version.

    Raises:
        BadInput: naming their folder.
    """
    if facts.made_for not in (spec.judge_digest, spec.earlier_judge_digest):
        raise BadInput(
            f"{table.folder} holds verdicts given under other options: "
            f"remove that folder to judge again with {dict(spec.judge_options)}"
        )


def is_tied(part: Part, facts: PartFacts, source: Part) -> bool:
    """Whether verdicts are on the images of `source`; assumed of two parts that version 0.2.0 wrote."""
    return facts.source == source.path.name or (part.facts is None and source.facts is None)


def _differences(old: RunSpec, new: RunSpec) -> str:
    before, after = _compared(old), _compared(new)
    pairs = [(name, before.get(name), after.get(name)) for name in sorted(before | after)]
    return ", ".join(f"{name}: {was!r} there, {now!r} asked" for name, was, now in pairs if was != now)


def _compared(spec: RunSpec) -> dict[str, Any]:
    options = without(spec.engine_options, spec.engine_speed_options)
    return without(spec.to_json(), NOT_IN_DIGEST) | {"engine_options": options}
