"""The run folder: parts written atomically, the lock, the manifest.

A part contains the rows of one block of draws and is called `part-<block>-<digest>.parquet`. The
digest is of the file's bytes, so a truncated or corrupted file does not match its own name. A part is
renamed into place after its bytes are synced; a crash leaves a `.tmp`, never half a part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput
from sar_eval.storage.files import read_table, remove_own_temporaries, write_bytes
from sar_eval.storage.lock import run_lock
from sar_eval.storage.schemas import GENERATIONS, PROMPTS, VERDICTS, Row
from sar_eval.types import Prompt

ROWS_PER_GROUP = 16  # a Parquet row group is the minimum that is read for one image
PART_NAME = re.compile(r"part-(\d{6})-([0-9a-f]{16})\.parquet")


class PartTable:
    """A table stored as a folder of parts, one per block, with one schema."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema

    def write(self, block: int, rows: Sequence[Row]) -> Path:
        """Write a block's part, then remove older parts of the same block."""
        sink = pa.BufferOutputStream()
        pq.write_table(
            pa.Table.from_pylist(list(rows), schema=self.schema),
            sink,
            row_group_size=ROWS_PER_GROUP,
            compression="zstd",
            write_page_checksum=True,
        )
        data = sink.getvalue().to_pybytes()
        path = self.folder / f"part-{block:06d}-{_digest(data)}.parquet"
        write_bytes(path, data)
        for older in self.folder.glob(f"part-{block:06d}-*.parquet"):
            if older != path:
                older.unlink()
        return path

    def paths(self) -> list[Path]:
        """Paths of the parts in block order."""
        return sorted(path for path in self.folder.glob("part-*.parquet") if PART_NAME.fullmatch(path.name))

    def stored_blocks(self) -> list[int]:
        """Numbers of the blocks that have a part."""
        return [_block_number(path) for path in self.paths()]

    def damaged_parts(self) -> list[Path]:
        """Parts whose bytes do not match the digest in their name."""
        return [path for path in self.paths() if not _is_intact(path)]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows, part by part.

        Raises:
            BadInput: a part cannot be read or lacks a column.
        """
        for path in self.paths():
            yield from self.read_part(path, columns)

    def read_part(self, path: Path, columns: Sequence[str] | None = None) -> list[Row]:
        """The rows of one part.

        Raises:
            BadInput: the part is damaged, cannot be read or lacks a column.
        """
        try:
            data = path.read_bytes()
            if _digest(data) != path.stem[-16:]:
                raise pa.ArrowInvalid("its bytes do not match the digest in its name")
            table = pq.read_table(pa.BufferReader(data), columns=list(columns) if columns else None)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(
                f"{path} is damaged ({error}): run the command that wrote it (`sar-eval run`, `generate` "
                "or `judge`) again to replace it"
            ) from error
        return list(table.to_pylist())

    def read_block(self, number: int, columns: Sequence[str] | None = None) -> list[Row]:
        """The rows of one block; empty if it is not stored."""
        return [
            row
            for path in self.folder.glob(f"part-{number:06d}-*.parquet")
            for row in self.read_part(path, columns)
        ]

    def finished_blocks(self, expected: dict[int, set[str]]) -> set[int]:
        """Blocks whose part has each expected key once, without errors; `expected` has keys by block."""
        finished = set()
        for path in self.paths():
            number = _block_number(path)
            rows = self.read_part(path, ["key", "error"])
            keys = [row["key"] for row in rows if row["error"] is None]
            if len(keys) == len(set(keys)) and set(keys) == expected.get(number):
                finished.add(number)
        return finished

    def clean(self) -> list[Path]:
        """Remove temporary files, damaged parts and superseded parts; returns the damaged ones."""
        remove_own_temporaries(self.folder, PART_NAME)
        damaged = self.damaged_parts()
        for path in damaged:
            path.unlink()
        self._remove_superseded()
        return damaged

    def _remove_superseded(self) -> None:
        """Keep one part per block: a crash between writing one and removing the older one leaves two."""
        kept: dict[int, Path] = {}
        for path in sorted(self.paths(), key=lambda p: (self._count_errors(p), -p.stat().st_mtime_ns)):
            if _block_number(path) in kept:
                path.unlink()
            kept.setdefault(_block_number(path), path)

    def _count_errors(self, path: Path) -> int:
        return sum(row["error"] is not None for row in self.read_part(path, ["error"]))


class RunFolder:
    """The files of one run: manifest, prompts, generations, verdicts, summary, report."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def generations(self) -> PartTable:
        """The table of generations."""
        return PartTable(self.path / "generations", GENERATIONS)

    def verdicts(self, judge: str) -> PartTable:
        """The table of a judge's verdicts."""
        return PartTable(self.path / "verdicts" / re.sub(r"[^A-Za-z0-9._-]", "_", judge), VERDICTS)

    def read_manifest(self) -> Row:
        """The contents of `run.json`.

        Raises:
            BadInput: the file is missing or broken.
        """
        path = self.path / "run.json"
        if not path.is_file():
            raise BadInput(f"{self.path} is not a run folder (no run.json)")
        try:
            manifest = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise BadInput(f"{path} is broken: {error}") from error
        if not isinstance(manifest, dict) or not {"spec", "digest"} <= set(manifest):
            raise BadInput(f"{path} is broken: it has no spec and digest")
        return manifest

    def write_prompts(self, prompts: Iterable[Prompt]) -> None:
        """Store the suite in `prompts.parquet`."""
        rows = [
            asdict(p) | {"checks": json.dumps(p.checks) if p.checks is not None else None} for p in prompts
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=PROMPTS), sink)
        write_bytes(self.path / "prompts.parquet", sink.getvalue().to_pybytes())

    def read_prompts(self) -> list[Prompt]:
        """The prompts in `prompts.parquet`."""
        rows = read_table(self.path / "prompts.parquet")
        return [
            Prompt(**row | {"checks": json.loads(row["checks"]) if row["checks"] else None}) for row in rows
        ]

    def lock(self) -> AbstractContextManager[str]:
        """Hold the run's exclusive write lock; yields a note or "" (see `storage.lock.run_lock`)."""
        return run_lock(self.path)


def _block_number(path: Path) -> int:
    return int(path.name[5:11])


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _is_intact(path: Path) -> bool:
    match = PART_NAME.fullmatch(path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    return match is not None and match[2] == digest
