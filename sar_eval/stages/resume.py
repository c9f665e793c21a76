"""Where resume is decided: whether a run folder belongs to this spec, and which of its blocks are left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.provenance import git_commit, versions
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent
from sar_eval.spec import JUDGING, NOT_IN_DIGEST, RunSpec, without
from sar_eval.storage.files import storage_errors, write_json
from sar_eval.storage.run_folder import PartTable, RunFolder
from sar_eval.suites.prompts import load_suite
from sar_eval.types import Draw


def prepare(spec: RunSpec, folder: RunFolder) -> RunSpec:
    """Write `run.json` and the prompts on the first start, check them on a resume (lock held).

    A resume keeps the first start's batch size, so that blocks stay the same (see `kept_settings`).

    Raises:
        SpecMismatch: the folder belongs to another spec.
    """
    path = folder.path / "run.json"
    if not path.exists():
        folder.write_prompts(load_suite(Path(spec.suite)).prompts)
        first = {"spec": spec.to_json(), "digest": spec.digest}
        write_json(path, first | {"versions": versions(), "git_commit": git_commit()})
        return spec
    manifest = folder.read_manifest()
    changed = _differences(RunSpec.from_json(manifest["spec"]), spec)
    # Version 0.1.0 left more options of other people's engines out of the digest.
    earlier = "engine_speed_options" not in manifest["spec"]
    if manifest["digest"] != spec.digest and (changed or not earlier):
        written_by = manifest.get("versions", {}).get("sar_eval")
        raise SpecMismatch(
            f"{folder.path} holds a run with another spec ({changed or f'by sar-eval {written_by}'}): "
            "use another --out, or remove the folder to start again"
        )
    # Without a judge (`generate` again) the run keeps the one it has.
    judging = {name: getattr(spec, name) for name in JUDGING} if spec.judge else {}
    engine = {name: getattr(spec, name) for name in ("engine_options", "engine_speed_options")}
    kept = RunSpec.from_json(manifest["spec"] | judging | engine)
    if kept.to_json() != manifest["spec"]:
        write_json(path, manifest | {"spec": kept.to_json(), "digest": kept.digest})
    return kept


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
    blocks: Sequence[Sequence[Draw]],
    among: Collection[int],
    progress: ProgressCallback,
    redo: str,
) -> list[int]:
    """Numbers of the blocks whose stored part is not whole and free of errors; reports what is stored.

    Temporary files and damaged parts are removed first.

    Args:
        stage: its name, for `progress`.
        table: where the stage stores its parts.
        blocks: all of the run.
        among: the blocks that the stage is to do.
        progress: gets the state at the start, and a note for every damaged part.
        redo: what will be done to a damaged part ("made", "judged").

    Raises:
        StorageFailed: the disk is full or read-only.
    """
    with storage_errors(table.folder.parent):
        damaged = table.clean()
    finished = table.finished_blocks({i: {draw.key for draw in blocks[i]} for i in among})
    done, total = (sum(len(blocks[i]) for i in some) for some in (finished, among))
    progress(ProgressEvent(stage, done, total))
    for path in damaged:
        progress(ProgressEvent(stage, done, total, note=f"damaged part {path.name} will be {redo} again"))
    return [i for i in sorted(among) if i not in finished]


def check_verdicts(spec: RunSpec, folder: RunFolder) -> None:
    """Refuse to add verdicts to those of a judge with other options or another version.

    Raises:
        BadInput: naming the folder to remove.
    """
    table = folder.verdicts(spec.judge)
    for path in table.paths():
        digests = {row["judge_digest"] for row in table.read_part(path, ["judge_digest"])}
        if not digests <= {spec.judge_digest, spec.earlier_judge_digest}:
            raise BadInput(
                f"{table.folder} holds verdicts given under other options: "
                f"remove that folder to judge again with {dict(spec.judge_options)}"
            )


def _differences(old: RunSpec, new: RunSpec) -> str:
    before, after = _compared(old), _compared(new)
    pairs = [(name, before.get(name), after.get(name)) for name in sorted(before | after)]
    return ", ".join(f"{name}: {was!r} there, {now!r} asked" for name, was, now in pairs if was != now)


def _compared(spec: RunSpec) -> dict[str, Any]:
    options = without(spec.engine_options, spec.engine_speed_options)
    return without(spec.to_json(), NOT_IN_DIGEST) | {"engine_options": options}
