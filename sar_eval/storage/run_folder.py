"""The run folder: manifest, prompts, tables of parts, summary, lock."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sar_eval.documents import convert, read_json
from sar_eval.errors import BadInput
from sar_eval.storage.files import write_json
from sar_eval.storage.lock import run_lock
from sar_eval.storage.manifest import Manifest, StoredPrompts
from sar_eval.storage.part_files import PART_NAME
from sar_eval.storage.parts import Part, PartTable
from sar_eval.storage.prompt_table import PromptTable, file_digest, write_prompts
from sar_eval.storage.schemas import GENERATIONS, VERDICTS, Row, generation_facts, verdict_facts
from sar_eval.types import Prompt, suite_digest

SUMMARY_DIGEST, MANIFEST_DIGEST = "digest", "checksum"  # of a file's own contents


class RunFolder:
    """The files of one run: manifest, prompts, generations, verdicts, summary, report."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def generations(self) -> PartTable:
        """The table of generations."""
        return PartTable(self.path / "generations", GENERATIONS, self.path)

    def verdicts(self, judge: str) -> PartTable:
        """The table of a judge's verdicts."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", judge)
        return PartTable(self.path / "verdicts" / name, VERDICTS, self.path)

    def write_generations(self, block: int, rows: Sequence[Row], spec_digest: str) -> Part:
        """Store a block's generations."""
        return self.generations.write(block, rows, generation_facts(rows, spec_digest))

    def write_verdicts(
        self, judge: str, block: int, rows: Sequence[Row], judge_digest: str, source: Part
    ) -> Part:
        """Store a block's verdicts on the part `source` of generations."""
        facts = verdict_facts(rows, judge_digest, source.path.name)
        return self.verdicts(judge).write(block, rows, facts)

    def read_manifest(self) -> Manifest:
        """The contents of `run.json`.

        Raises:
            BadInput: the file is missing or broken, or a key of it has an unusable value.
        """
        path = self.path / "run.json"
        if not path.is_file():
            raise BadInput(f"{self.path} is not a run folder (no run.json)")
        way_on = "restore it, or start again with another --out"
        manifest = convert(read_json(path), Manifest, str(path), way_on)
        if (shard := manifest.shard) and not 1 <= shard.index <= shard.of:
            raise BadInput(f"{path}: there is no shard {shard}: {way_on}")
        return manifest

    def manifest_is_intact(self) -> bool:
        """Whether `run.json` is as it was written; assumed of one without a checksum (before 0.3.0)."""
        data = dict(read_json(self.path / "run.json"))
        stored = data.pop(MANIFEST_DIGEST, None)
        return stored is None or stored == _digest_of(data)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write `run.json`, with a checksum of its own contents."""
        data = asdict(manifest)
        del data[MANIFEST_DIGEST]
        write_json(self.path / "run.json", data | {MANIFEST_DIGEST: _digest_of(data)})

    def holds_parts(self) -> bool:
        """Whether there are parts of any table."""
        folders = [self.path / "generations", *(self.path / "verdicts").glob("*")]
        return any(PART_NAME.fullmatch(path.name) for folder in folders for path in folder.rglob("part-*"))

    def write_prompts(self, prompts: Iterable[Prompt]) -> StoredPrompts:
        """Store the suite in `prompts.parquet`."""
        path = self.path / "prompts.parquet"
        digest = write_prompts(prompts, path)
        return StoredPrompts(digest=digest, number=len(PromptTable(path)))

    def prompts(self) -> PromptTable:
        """The prompts in `prompts.parquet`.

        Raises:
            BadInput: they are not those that the run was begun with.
        """
        path, manifest = self.path / "prompts.parquet", self.read_manifest()
        if self._are_intact(path, manifest):
            return PromptTable(path)
        raise BadInput(
            f"{path} is not what the run was begun with: it was changed or damaged. The command that began "
            "the run makes it again from the prompt file, if that is still the same"
        )

    @property
    def prompt_source(self) -> str:
        """The file of many millions of prompts that the run reads as needed; "" if it has a copy."""
        stored = self.read_manifest().prompts
        return stored.source if stored is not None else ""

    def _are_intact(self, path: Path, manifest: Manifest) -> bool:
        if manifest.prompts is None:  # begun by version 0.2.0 or earlier
            return suite_digest(PromptTable(path)) == manifest.spec.get("suite_digest")
        return file_digest(path) == manifest.prompts.digest

    def write_summary(self, summary: Row) -> None:
        """Write `summary.json`, with a digest of its own contents."""
        write_json(self.path / "summary.json", summary | {SUMMARY_DIGEST: _digest_of(summary)})

    def read_summary(self) -> Row:
        """The contents of `summary.json`, without the digest.

        Raises:
            BadInput: it is missing, broken, or not what `summarize` wrote.
        """
        path = self.path / "summary.json"
        if not path.is_file():
            raise BadInput(f"{self.path} has no summary.json: run `sar-eval summarize` on it first")
        summary = convert(read_json(path), dict[str, Any], str(path), "run `sar-eval summarize` again")
        if summary.pop(SUMMARY_DIGEST, None) != _digest_of(summary):
            raise BadInput(
                f"{path} is not what sar-eval wrote (by its digest): run `sar-eval summarize` again"
            )
        return summary

    def lock(self) -> AbstractContextManager[str]:
        """Hold the run's exclusive write lock; yields a note or "" (see `storage.lock.run_lock`)."""
        return run_lock(self.path)


def _digest_of(data: Row) -> str:
    text = json.dumps(data, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
