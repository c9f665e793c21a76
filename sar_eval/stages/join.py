"""Stage: from the run folders of several shards to one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sar_eval.errors import SpecMismatch
from sar_eval.runtime.blocks import Blocks
from sar_eval.spec import RunSpec
from sar_eval.stages.resume import (
    check_blocks,
    check_judge,
    check_manifest,
    check_spec,
    open_blocks,
    stopped,
    wanted_blocks,
)
from sar_eval.storage.files import link_or_copy
from sar_eval.storage.manifest import Manifest
from sar_eval.storage.parts import Part, PartTable
from sar_eval.storage.run_folder import RunFolder
from sar_eval.suites.streamed import stored_prompts


@dataclass(frozen=True, slots=True)
class Joined:
    """Images of the joined run: drawn and judged without error, and expected in all."""

    drawn: int
    judged: int
    expected: int


def join(shards: Sequence[RunFolder], out: RunFolder) -> Joined:
    """Link (or copy) all parts of the shards into one run folder (lock held).

    Args:
        shards: run folders of one spec; they stay as they are.
        out: an empty folder, or the one of an earlier join of the same run.

    Raises:
        BadInput: one is no run folder, or is damaged.
        SpecMismatch: they are of several runs, or two hold different parts of one block.
        StorageFailed: the folder cannot be written.
    """
    manifests = [folder.read_manifest() for folder in shards]
    beside = list({json.dumps(side, sort_keys=True): side for m in manifests for side in m.beside}.values())
    for folder in shards:
        check_manifest(folder)
    for folder, manifest in zip(shards, manifests, strict=True):
        _check_same(manifests[0], shards[0], manifest, folder)
    spec = RunSpec.from_json(manifests[0].spec, str(shards[0].path / "run.json"))
    _begin(shards[0], replace(manifests[0], beside=tuple(beside)), out)
    blocks = open_blocks(spec, out)
    for folder in shards:
        _add(folder.generations, out.generations, blocks)
        for judge in sorted(path.name for path in (folder.path / "verdicts").glob("*") if path.is_dir()):
            _add(folder.verdicts(judge), out.verdicts(judge), blocks)
    return _count(spec, manifests[0], out, blocks)


def _check_same(first: Manifest, its: RunFolder, other: Manifest, folder: RunFolder) -> None:
    names = ("digest", "prompts", "order")
    differ = [name for name in names if getattr(first, name) != getattr(other, name)]
    differ += [name for name in ("batch_size",) if first.spec.get(name) != other.spec.get(name)]
    if not differ and first.spec.get("judge") == other.spec.get("judge"):
        judges = [RunSpec.from_json(manifest.spec).judge_digest for manifest in (first, other)]
        differ += ["judge_options"] if judges[0] != judges[1] else []
    if differ:
        raise SpecMismatch(
            f"{folder.path} is no shard of the run in {its.path}: its {differ[0]} is another"
        )


def _begin(shard: RunFolder, manifest: Manifest, out: RunFolder) -> None:
    """Prompts and manifest of the whole run."""
    whole = replace(manifest, shard=None)
    if (out.path / "run.json").exists():
        there = out.read_manifest()
        _check_same(whole, shard, there, out)
        more = tuple(side for side in manifest.beside if side not in there.beside)
        out.write_manifest(replace(there, beside=(*there.beside, *more)))
        return
    stored_prompts(shard)  # they are intact
    out.path.mkdir(parents=True, exist_ok=True)
    if manifest.prompts is None or not manifest.prompts.source:
        link_or_copy(shard.path / "prompts.parquet", out.path / "prompts.parquet")
    out.write_manifest(whole)


def _add(source: PartTable, target: PartTable, blocks: Blocks) -> None:
    there = target.parts()
    found = source.parts()
    check_blocks(found.values(), blocks)
    for block, part in found.items():
        if block not in there or _is_better(source, part, target, there[block]):
            target.adopt(part)


def _is_better(source: PartTable, part: Part, target: PartTable, there: Part) -> bool:
    """Whether a part replaces one of the same block: one with fewer errors.

    Raises:
        SpecMismatch: both are whole, with different images.
    """
    if part.path.name == there.path.name:
        return False
    new, old = source.facts(part), target.facts(there)
    if new.errors == old.errors == 0:
        if source.image_digests(part, new.rows) != target.image_digests(there, old.rows):
            raise SpecMismatch(f"{part.path} and {there.path} hold different images of block {part.block}")
        return False
    return new.errors < old.errors


def _count(spec: RunSpec, manifest: Manifest, out: RunFolder, blocks: Blocks) -> Joined:
    digests = {manifest.digest, *manifest.earlier_digests}
    drawn = judged = 0
    found = out.generations.parts()
    for part in found.values():
        facts = out.generations.facts(part)
        check_spec(part, facts, digests)
        drawn += facts.rows - facts.errors
    if spec.judge:
        table = out.verdicts(spec.verdict_table)
        for facts in map(table.facts, table.parts().values()):
            check_judge(spec, table, facts)
            judged += facts.rows - facts.errors
    stop = stopped(out, found)
    expected = sum(map(blocks.draws_in, wanted_blocks(blocks, stop)))
    return Joined(drawn, judged, expected)
