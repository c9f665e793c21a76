"""The run folder: parts that are whole or absent, the lock, the manifest.

A part holds the rows of one block of draws and is called `part-<block>-<digest>.parquet`. The
digest is of the file's bytes, so a torn or flipped file is known by its own name. It appears by
rename after its bytes are on disk; a crash leaves a `.tmp`, never half a part.
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

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput, RunLocked
from sar_eval.storage.files import read_table, storage_errors, write_bytes
from sar_eval.storage.schemas import GENERATIONS, PROMPTS, VERDICTS, Row
from sar_eval.types import Prompt

ROWS_PER_GROUP = 16  # one image costs the reading of at most this many
PART = re.compile(r"part-(\d{6})-([0-9a-f]{16})\.parquet")


class Table:
    """A folder of parts under one schema."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema

    def write(self, block: int, rows: Sequence[Row]) -> Path:
        """Store a block's rows, then drop older parts of the same block."""
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
        """Parts in block order."""
        return sorted(path for path in self.folder.glob("part-*.parquet") if PART.fullmatch(path.name))

    def stored_blocks(self) -> list[int]:
        """Numbers of the blocks that have a part."""
        return [_block_number(path) for path in self.paths()]

    def damaged(self) -> list[Path]:
        """Parts whose bytes are not what their name says."""
        return [path for path in self.paths() if not _is_whole(path)]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows, part by part.

        Raises:
            BadInput: a part cannot be read or has other columns.
        """
        for path in self.paths():
            yield from self.part(path, columns)

    def part(self, path: Path, columns: Sequence[str] | None = None) -> list[Row]:
        """The rows of one part, its bytes checked against its name."""
        try:
            data = path.read_bytes()
            if _digest(data) != path.stem[-16:]:
                raise pa.ArrowInvalid("its bytes are not what its name says")
            found = pq.read_table(pa.BufferReader(data), columns=list(columns) if columns else None)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(
                f"{path} is damaged ({error}): the command that made it (`sar-eval run`, `generate` or "
                "`judge`) makes it again"
            ) from error
        return list(found.to_pylist())

    def block(self, number: int, columns: Sequence[str] | None = None) -> list[Row]:
        """The rows of one block; none if it is not stored."""
        return [
            row
            for path in self.folder.glob(f"part-{number:06d}-*.parquet")
            for row in self.part(path, columns)
        ]

    def finished(self, expected: dict[int, set[str]]) -> set[int]:
        """Blocks whose part is whole and holds each expected key once, without errors."""
        done = set()
        for path in self.paths():
            number = _block_number(path)
            rows = self.part(path, ["key", "error"])
            keys = [row["key"] for row in rows if row["error"] is None]
            if len(keys) == len(set(keys)) and set(keys) == expected.get(number):
                done.add(number)
        return done

    def clean(self) -> list[Path]:
        """Remove temporary files, damaged parts and superseded ones; returns the damaged ones."""
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink()
        damaged = self.damaged()
        for path in damaged:
            path.unlink()
        self._drop_superseded()
        return damaged

    def _drop_superseded(self) -> None:
        """Leave one part a block: a crash between writing one and removing the last leaves two."""
        kept: dict[int, Path] = {}
        for path in sorted(self.paths(), key=lambda p: (self._errors(p), -p.stat().st_mtime_ns)):
            if _block_number(path) in kept:
                path.unlink()
            kept.setdefault(_block_number(path), path)

    def _errors(self, path: Path) -> int:
        return sum(row["error"] is not None for row in self.part(path, ["error"]))


class RunFolder:
    """One run: manifest, prompts, generations, verdicts, summary, report."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def generations(self) -> Table:
        """What the engine made."""
        return Table(self.path / "generations", GENERATIONS)

    def verdicts(self, judge: str) -> Table:
        """What a judge said."""
        return Table(self.path / "verdicts" / re.sub(r"[^A-Za-z0-9._-]", "_", judge), VERDICTS)

    def read_manifest(self) -> Row:
        """The contents of `run.json`.

        Raises:
            BadInput: there is none, or it is broken.
        """
        path = self.path / "run.json"
        if not path.is_file():
            raise BadInput(f"{self.path} is no run folder (no run.json)")
        try:
            manifest = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise BadInput(f"{path} is broken: {error}") from error
        if not isinstance(manifest, dict) or not {"spec", "digest"} <= set(manifest):
            raise BadInput(f"{path} is broken: no spec and digest in it")
        return manifest

    def write_prompts(self, prompts: Iterable[Prompt]) -> None:
        """Store the suite beside what is made of it."""
        rows = [
            asdict(p) | {"checks": json.dumps(p.checks) if p.checks is not None else None} for p in prompts
        ]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=PROMPTS), sink)
        write_bytes(self.path / "prompts.parquet", sink.getvalue().to_pybytes())

    def read_prompts(self) -> list[Prompt]:
        """The stored suite."""
        rows = read_table(self.path / "prompts.parquet")
        return [
            Prompt(**row | {"checks": json.loads(row["checks"]) if row["checks"] else None}) for row in rows
        ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing; the operating system lets go if the process dies.

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
            for leftover in self.path.glob("*.tmp"):  # of a process that died here
                leftover.unlink()
            yield


def _block_number(path: Path) -> int:
    return int(path.name[5:11])


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _is_whole(path: Path) -> bool:
    found = PART.fullmatch(path.name)
    with path.open("rb") as file:
        data = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    return found is not None and found[2] == data
