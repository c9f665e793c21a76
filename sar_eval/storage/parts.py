"""A table of a run: one Parquet part for each block of draws, written atomically.

A part is called `part-<block>-<digest>.parquet`. The digest is of the file's bytes, so a truncated or
corrupted file does not match its own name. A part is renamed into place after its bytes are synced; a
crash leaves a `.tmp`, never half a part. Its footer holds `PartFacts`, so a resume or a summary of a
million rows reads footers and not images. A folder holds the parts of at most a thousand blocks (block
1234 lies in `001/`), so finding one costs the same however many there are.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput
from sar_eval.storage.files import storage_errors, write_bytes
from sar_eval.storage.schemas import PartFacts, Row, facts_of_rows

# A Parquet row group is the minimum that is read for one image, and each costs time when columns are
# read: of large images a group has so many rows, of small ones as many as make up so many bytes.
ROWS_PER_GROUP = 16
BYTES_PER_GROUP = 4_000_000
BLOCKS_PER_FOLDER = 1000
PART_NAME = re.compile(r"part-(\d{6,18})-([0-9a-f]{16})\.parquet")
TEMPORARY_NAME = re.compile(PART_NAME.pattern + r"\.\d+\.tmp")
FACTS = b"sar_eval.part"  # key of the footer's metadata
FACT_COLUMNS = ("error", "spec_digest", "judge_digest", "steps", "out_of_range_tokens")
UNIQUE = ("key", "image.bytes", "image.path")  # columns without repeated values
OPTIONAL = ("provenance", "image_digest")  # columns that earlier versions did not write
SMALL = 1_000_000  # bytes of a part up to which it is read whole, whatever columns are asked for
# Bytes that a start reads to find damage. Of larger tables it reads the footers; `verify` reads all.
CHECKED_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part; `facts` is None if it was written before version 0.3.0."""

    path: Path
    block: int
    facts: PartFacts | None


class PartTable:
    """A table stored as a folder of parts, one per block, with one schema."""

    def __init__(self, folder: Path, schema: pa.Schema, root: Path | None = None) -> None:
        """`root`: the run folder, which must be there: a part never makes it anew."""
        self.folder, self.schema, self.root = folder, schema, root or folder.parent

    def write(self, block: int, table: pa.Table, facts: PartFacts) -> Part:
        """Write a block's part, then remove older parts of the same block.

        Raises:
            StorageFailed: it cannot be written, or the run folder is gone.
        """
        data = _encode(table, facts)
        path = self._folder_of(block) / f"part-{block:06d}-{_digest(data)}.parquet"
        self._make_folder(path.parent)
        write_bytes(path, data, make_folder=False)
        for older in self._paths_of(block):
            if older != path:
                older.unlink(missing_ok=True)
        return Part(path, block, facts)

    def parts(self) -> dict[int, Part]:
        """The part of each block, by number in ascending order, from the footers.

        Where a crash left two of a block, it is the one with fewer errors, or else the newer one. A part
        whose footer cannot be read counts as one without facts; reading its rows says what is wrong.
        """
        found: dict[int, Part] = {}
        for block, paths in sorted(self._paths_by_block().items()):
            candidates = [Part(path, block, _read_facts(path)) for path in paths]
            found[block] = candidates[0] if len(candidates) == 1 else min(candidates, key=self._rank)
        return found

    def paths(self) -> list[Path]:
        """Paths of all parts in block order, superseded ones included."""
        return [path for _, paths in sorted(self._paths_by_block().items()) for path in sorted(paths)]

    def current_paths(self) -> list[Path]:
        """The path of each block's part, as in `parts`; footers are read only where there are several."""
        return [
            paths[0]
            if len(paths) == 1
            else min((Part(p, block, _read_facts(p)) for p in paths), key=self._rank).path
            for block, paths in sorted(self._paths_by_block().items())
        ]

    def part(self, block: int) -> Part | None:
        """The part of one block, at a cost that does not depend on how many there are."""
        candidates = [Part(path, block, _read_facts(path)) for path in self._paths_of(block)]
        return min(candidates, key=self._rank, default=None)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows, part by part.

        Raises:
            BadInput: a part is damaged, cannot be read or lacks a column.
        """
        for part in self.parts().values():
            yield from self.read(part.path, columns).to_pylist()

    def columns(self, names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """Columns of all rows, part by part: `{name: values}`.

        Raises:
            BadInput: a part is damaged, cannot be read or lacks a column.
        """
        for path in self.current_paths():
            yield self.read(path, names).to_pydict()

    def read_block(self, number: int, columns: Sequence[str] | None = None) -> list[Row]:
        """The rows of one block; empty if it is not stored."""
        part = self.part(number)
        return [] if part is None else list(self.read(part.path, columns).to_pylist())

    def read(self, path: Path, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of one part.

        All bytes are checked if the images are read or the part is small, otherwise the pages that are
        read (by their checksums). Columns that an earlier version did not write are null.

        Raises:
            BadInput: the part is damaged, cannot be read or lacks a column.
        """
        names = list(columns or self.schema.names)
        try:
            return _read_columns(path, names, self.schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadInput(damaged_message(path, str(error))) from error

    def images_at(self, path: Path, positions: Sequence[int]) -> list[bytes | None]:
        """The encoded images of some rows of a part; reads only the row groups that hold them.

        Raises:
            BadInput: the part is damaged or cannot be read.
        """
        found: dict[int, bytes | None] = {}
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                start = 0
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    if wanted := [position for position in positions if start <= position < stop]:
                        images = file.read_row_group(group, ["image"], use_threads=False).column("image")
                        rows = ((position, images[position - start].as_py()) for position in wanted)
                        found |= {position: image and image["bytes"] for position, image in rows}
                    start = stop
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadInput(damaged_message(path, str(error))) from error
        return [found.get(position) for position in positions]

    def facts(self, part: Part) -> PartFacts:
        """The part's facts, read from its rows if an earlier version wrote it.

        Raises:
            BadInput: the part is damaged, cannot be read or lacks a column.
        """
        return part.facts or facts_of_rows(self.read(part.path, self._fact_columns()).to_pylist())

    def damaged_parts(self, paths: Sequence[Path] | None = None) -> list[Path]:
        """Parts whose bytes do not match the digest in their name."""
        return [path for path in (self.paths() if paths is None else paths) if not _is_intact(path)]

    def clean(self, limit: int = CHECKED_BYTES) -> list[Path]:
        """Remove what a crash left: temporary files, damaged parts, superseded parts.

        Args:
            limit: total size up to which every byte is checked; of a larger table only the footers are.

        Returns:
            The damaged ones.
        """
        self._remove_temporaries()
        damaged = self._find_damaged(limit)
        for path in damaged:
            path.unlink(missing_ok=True)
        self._remove_superseded()
        return damaged

    def _find_damaged(self, limit: int) -> list[Path]:
        paths = self.paths()
        if sum(path.stat().st_size for path in paths) <= limit:
            return self.damaged_parts(paths)
        return [path for path in paths if not _has_footer(path)]

    def _remove_temporaries(self) -> None:
        for entry in self._entries():
            if TEMPORARY_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)

    def _remove_superseded(self) -> None:
        """Keep one part per block: a crash between writing one and removing the older one leaves two."""
        for block, paths in self._paths_by_block().items():
            if len(paths) > 1:
                best = min((Part(path, block, _read_facts(path)) for path in paths), key=self._rank)
                for path in paths:
                    if path != best.path:
                        path.unlink()

    def _rank(self, part: Part) -> tuple[int, int]:
        try:
            return self.facts(part).errors, -part.path.stat().st_mtime_ns
        except (BadInput, OSError):  # damaged: any other one is better
            return 1 << 62, 0

    def _folder_of(self, block: int) -> Path:
        return (
            self.folder if block < BLOCKS_PER_FOLDER else self.folder / f"{block // BLOCKS_PER_FOLDER:03d}"
        )

    def _make_folder(self, folder: Path) -> None:
        """Make the folders up to the run folder, but not that one: who moved it keeps what is there."""
        missing = [folder, *folder.parents][: len(folder.relative_to(self.root).parts)]
        with storage_errors(folder):
            for path in reversed(missing):
                path.mkdir(exist_ok=True)

    def _paths_of(self, block: int) -> list[Path]:
        """Parts of a block, from the one folder that has it (two in a run of an earlier version)."""
        folders = {self._folder_of(block), self.folder} if self._is_flat else {self._folder_of(block)}
        prefix = f"part-{block:06d}-"
        return [
            Path(entry.path)
            for folder in folders
            for entry in _scan(folder)
            if entry.name.startswith(prefix) and PART_NAME.fullmatch(entry.name)
        ]

    @cached_property
    def _is_flat(self) -> bool:
        """Whether an earlier version put more than a thousand blocks into one folder."""
        names = (PART_NAME.fullmatch(entry.name) for entry in _scan(self.folder))
        return any(int(match[1]) >= BLOCKS_PER_FOLDER for match in names if match)

    def _paths_by_block(self) -> dict[int, list[Path]]:
        found: dict[int, list[Path]] = defaultdict(list)
        for entry in self._entries():
            if match := PART_NAME.fullmatch(entry.name):
                found[int(match[1])].append(Path(entry.path))
        return found

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for entry in _scan(self.folder):
            if entry.name.isdecimal() and entry.is_dir():
                yield from _scan(Path(entry.path))
            else:
                yield entry

    def _fact_columns(self) -> list[str]:
        return [name for name in FACT_COLUMNS if name in self.schema.names]


def damaged_message(path: Path, why: str) -> str:
    """What to do about a part that cannot be read."""
    return (
        f"{path} is damaged ({why}): `sar-eval verify RUN --repair` removes damaged parts, then the "
        "command that wrote them (`sar-eval run`, `generate`, `judge` or `score`) makes them again"
    )


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(f"cannot list {folder}: {error.strerror}") from error


def _encode(table: pa.Table, facts: PartFacts) -> pa.Buffer:
    """The part's bytes. Images are compressed already: doing it again costs time and gains nothing."""
    text, leaves = msgspec.json.encode(asdict(facts)).decode(), _leaves(table.schema)
    images = "image" in table.schema.names
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression={name: "none" if name == "image.bytes" else "zstd" for name in leaves},
        use_dictionary=[name for name in leaves if name not in UNIQUE],
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table, row_group_size=_rows_per_group(table) if images else None)
        writer.add_key_value_metadata({FACTS: f"{_digest(text.encode())} {text}"})
    return sink.getvalue()


def _rows_per_group(table: pa.Table) -> int:
    return max(ROWS_PER_GROUP, BYTES_PER_GROUP * len(table) // max(int(table.nbytes), 1))


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's names of the columns."""
    leaves = []
    for column in schema:
        if pa.types.is_struct(column.type):
            leaves += [f"{column.name}.{child.name}" for child in column.type]
        elif pa.types.is_list(column.type):
            leaves.append(f"{column.name}.list.element")
        else:
            leaves.append(column.name)
    return leaves


def _read_columns(path: Path, names: list[str], schema: pa.Schema) -> pa.Table:
    whole = "image" in names or path.stat().st_size <= SMALL
    source: Any = path
    if whole:
        data = path.read_bytes()
        if _digest(data) != path.stem[-16:]:
            raise pa.ArrowInvalid("its bytes do not match the digest in its name")
        source = pa.BufferReader(data)
    with pq.ParquetFile(source, page_checksum_verification=not whole) as file:
        stored = set(file.schema_arrow.names)
        table = file.read(columns=[name for name in names if name in stored], use_threads=False)
    return _with_absent(table, names, schema)


def _with_absent(table: pa.Table, names: list[str], schema: pa.Schema) -> pa.Table:
    for name in names:
        if name in table.schema.names:
            continue
        if name not in OPTIONAL:
            raise pa.ArrowInvalid(f"it has no column {name!r}")
        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    table = table.select(names).replace_schema_metadata(None)
    wanted = pa.schema([schema.field(name) for name in names])
    return table if table.schema == wanted else table.cast(wanted)


def _read_facts(path: Path) -> PartFacts | None:
    """The footer's facts; None if it has none, or is damaged."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        digest, _, text = metadata[FACTS].decode().partition(" ")
        if digest != _digest(text.encode()):
            return None
        return msgspec.json.decode(text, type=PartFacts)
    except (KeyError, ValueError, OSError, pa.ArrowException, msgspec.MsgspecError):
        return None


def _has_footer(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def _digest(data: bytes | pa.Buffer) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _is_intact(path: Path) -> bool:
    match = PART_NAME.fullmatch(path.name)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    except OSError:
        return False
    return match is not None and match[2] == digest
