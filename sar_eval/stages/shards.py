"""Whether the shards of a run, drawn apart, have all that they are to have."""

from __future__ import annotations

from sar_eval.spec import RunSpec
from sar_eval.stages.resume import open_blocks
from sar_eval.storage.run_folder import RunFolder


def is_finished(folder: RunFolder) -> bool:
    """Whether a shard's run folder has every image and every verdict, without errors.

    Raises:
        BadInput: the folder is damaged.
    """
    if not (folder.path / "run.json").exists():
        return False
    spec = RunSpec.from_json(folder.read_manifest().spec, str(folder.path / "run.json"))
    wanted = set(open_blocks(spec, folder).numbers)
    tables = [folder.generations, *([folder.verdicts(spec.verdict_table)] if spec.judge else [])]
    for table in tables:
        parts = table.parts()
        if wanted - parts.keys() or any(table.facts(part).errors for part in parts.values()):
            return False
    return True
