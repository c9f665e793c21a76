"""The run folder: parts written atomically, the lock, the manifest.

A part contains the rows of one block of draws and is called `part-<block>-<digest>.parquet`. The
digest is of the file's bytes, so a truncated or corrupted file does not match its own name. A part is
renamed into place after its bytes are synced; a crash leaves a `.tmp`, never half a part.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput, RunLocked
from sar_eval.storage.files import read_table, storage_errors, write_bytes
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

    def columns(self, names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """Columns of all rows as lists, one dictionary per part in the order of `paths`.

        Reads these columns only, so it checks the checksums of their pages, not the digest of the part.

        Raises:
            BadInput: a part cannot be read or lacks a column.
        """
        for path in self.paths():
            with _damage_is_bad_input(path), _open_part(path) as part:
                columns: dict[str, list[Any]] = part.read(list(names), use_threads=False).to_pydict()
                _check_columns(columns, names)
            yield columns

    def images_at(self, path: Path, positions: Sequence[int]) -> list[bytes | None]:
        """The encoded images of some rows of a part; reads the row groups that hold them.

        Raises:
            BadInput: the part cannot be read.
        """
        found: dict[int, bytes | None] = {}
        with _damage_is_bad_input(path), _open_part(path) as part:
            start = 0
            for group in range(part.num_row_groups):
                stop = start + part.metadata.row_group(group).num_rows
                if wanted := [p for p in positions if start <= p < stop]:
                    images = part.read_row_group(group, ["image"], use_threads=False).column("image")
                    for position in wanted:
                        image = images[position - start].as_py()
                        found[position] = image["bytes"] if image else None
                start = stop
        return [found.get(position) for position in positions]

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
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink()
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

    def prompt_columns(self) -> dict[str, list[Any]]:
        """The columns of `prompts.parquet` as lists, `checks` as the stored JSON text.

        Raises:
            BadInput: the file cannot be read.
        """
        path = self.path / "prompts.parquet"
        try:
            table = pq.read_table(path, columns=PROMPTS.names, use_threads=False)
            _check_columns(dict.fromkeys(table.column_names, []), PROMPTS.names)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path} is not a readable Parquet file: {error}") from error
        columns: dict[str, list[Any]] = table.to_pydict()
        return columns

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's exclusive write lock, which the operating system releases if the process dies.

        Raises:
            RunLocked: another process holds it.
        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "run.lock").open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunLocked(
                    f"another process works in {self.path}: wait for it, or use another --out"
                ) from error
            for leftover in self.path.glob("*.tmp"):  # of a process that died
                leftover.unlink()
            yield


@contextmanager
def _damage_is_bad_input(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path} is damaged ({error}): run the command that wrote it (`sar-eval run`, `generate` "
            "or `judge`) again to replace it"
        ) from error


def _open_part(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


def _check_columns(columns: dict[str, list[Any]], names: Sequence[str]) -> None:
    if missing := set(names) - set(columns):
        raise pa.ArrowInvalid(f"no column {sorted(missing)[0]}")


def _block_number(path: Path) -> int:
    return int(path.name[5:11])


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _is_intact(path: Path) -> bool:
    match = PART_NAME.fullmatch(path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    return match is not None and match[2] == digest
