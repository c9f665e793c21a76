"""A table of a run: one Parquet part for each block of draws, written atomically.

A part is called `part-<block>-<digest>.parquet`, so a truncated or corrupted file does not match its own
name. It is renamed into place after its bytes are synced; a crash leaves a `.tmp`, never half a part. Its
footer holds `PartFacts`, so a resume or a summary of a million rows reads footers and not images. A folder
holds the parts of at most a thousand blocks (block 1234 lies in `001/`), so finding one costs the same
however many there are.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from sar_eval.errors import BadInput
from sar_eval.storage.files import link_or_copy, remove_own_temporaries, storage_errors
from sar_eval.storage.part_files import (
    PART_NAME,
    UNREADABLE,
    PartFile,
    has_footer,
    image_digests,
    images_at,
    is_intact,
    read_facts,
    write_part,
)
from sar_eval.storage.schemas import PartFacts, Row, facts_of_rows

BLOCKS_PER_FOLDER = 1000
FACT_COLUMNS = ("error", "spec_digest", "judge_digest", "steps", "out_of_range_tokens", "score")
# A start reads every byte of tables up to this size; of larger ones the footers. `verify` reads all.
CHECKED_BYTES, CHECKED_PARTS = 64_000_000, 500


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
        self._facts: dict[Path, PartFacts | None] = {}

    def write(self, block: int, rows: Sequence[Row], facts: PartFacts) -> Part:
        """Write a block's part, then remove older parts of the same block.

        Raises:
            StorageFailed: it cannot be written, or the run folder is gone.
        """
        folder = self._folder_of(block)
        self._make_folder(folder)
        path = write_part(folder, block, rows, self.schema, facts)
        self._remove_others(block, path)
        return Part(path, block, facts)

    def _remove_others(self, block: int, path: Path) -> None:
        for older in self._paths_of(block):
            if older != path:
                older.unlink(missing_ok=True)

    def adopt(self, part: Part) -> None:
        """Take over a part of another folder, and remove older parts of the same block.

        Raises:
            StorageFailed: it can be neither linked nor copied.
        """
        folder = self._folder_of(part.block)
        self._make_folder(folder)
        path = folder / part.path.name
        link_or_copy(part.path, path)
        self._remove_others(part.block, path)

    def parts(self) -> dict[int, Part]:
        """The part of each block, by number in ascending order, from the footers.

        Where a crash left two of a block, it is the one with fewer errors, or else the newer one. A part
        whose footer cannot be read counts as one without facts; reading its rows says what is wrong.
        """
        found: dict[int, Part] = {}
        for block, paths in sorted(self._paths_by_block().items()):
            candidates = [Part(path, block, self._read_facts(path)) for path in paths]
            found[block] = candidates[0] if len(candidates) == 1 else min(candidates, key=self._rank)
        return found

    def paths(self) -> list[Path]:
        """Paths of all parts in block order, superseded ones included."""
        return [path for _, paths in sorted(self._paths_by_block().items()) for path in sorted(paths)]

    def current_paths(self) -> list[Path]:
        """The path of each block's part, as in `parts`; footers are read only where there are several."""
        found = []
        for block, paths in sorted(self._paths_by_block().items()):
            candidates = (Part(path, block, self._read_facts(path)) for path in paths)
            found.append(paths[0] if len(paths) == 1 else min(candidates, key=self._rank).path)
        return found

    def part(self, block: int) -> Part | None:
        """The part of one block, at a cost that does not depend on how many there are."""
        candidates = [Part(path, block, self._read_facts(path)) for path in self._paths_of(block)]
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
        for part in self.parts().values():
            yield self.read(part.path, names).to_pydict()

    def read_block(self, number: int, columns: Sequence[str] | None = None) -> list[Row]:
        """The rows of one block; empty if it is not stored."""
        part = self.part(number)
        return [] if part is None else list(self.read(part.path, columns).to_pylist())

    def read(self, path: Path, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of one part.

        What is read is checked, and with it every byte but those of images that are not asked for.
        Columns that an earlier version did not write are null.

        Raises:
            BadInput: the part is damaged, cannot be read or lacks a column.
        """
        with self.open(path) as part:
            return part.read(columns or self.schema.names)

    @contextmanager
    def open(self, path: Path) -> Iterator[PartFile]:
        """Open a part, for its facts and for columns that depend on them.

        Raises:
            BadInput: the part is damaged, cannot be read or lacks a column.
        """
        try:
            with PartFile(path, self.schema) as part:
                yield part
        except UNREADABLE as error:
            raise BadInput(damaged_message(path, str(error))) from error

    def image_digests(self, part: Part, rows: int) -> list[str | None]:
        """The digest of each row's image; None without an image, and in a part of an earlier version.

        Raises:
            BadInput: the part is damaged.
        """
        try:
            return image_digests(part.path, rows)
        except UNREADABLE as error:
            raise BadInput(damaged_message(part.path, str(error))) from error

    def images_at(self, path: Path, positions: Sequence[int]) -> list[bytes | None]:
        """The encoded images of some rows of a part; reads the row groups that hold them, not the others.

        Raises:
            BadInput: the part is damaged or cannot be read.
        """
        try:
            return images_at(path, positions)
        except UNREADABLE as error:
            raise BadInput(damaged_message(path, str(error))) from error

    def facts(self, part: Part) -> PartFacts:
        """The part's facts, read from its rows if an earlier version wrote it.

        Raises:
            BadInput: the part is damaged, cannot be read or lacks a column.
        """
        return part.facts or facts_of_rows(self.read(part.path, self._fact_columns()).to_pylist())

    def check_facts(self, part: Part) -> None:
        """Compare what the footer says with the rows that it stands for.

        Raises:
            BadInput: they differ, or the part is damaged.
        """
        found = facts_of_rows(self.read(part.path, self._fact_columns()).to_pylist())
        for name in ("rows", "errors", "made_for", "sums", "scores"):
            if part.facts is not None and getattr(part.facts, name) != getattr(found, name):
                raise BadInput(
                    damaged_message(part.path, f"its footer says otherwise of {name} than its rows")
                )

    def damaged_parts(self, paths: Sequence[Path] | None = None) -> list[Path]:
        """Parts whose bytes do not match the digest in their name."""
        return [path for path in (self.paths() if paths is None else paths) if not is_intact(path)]

    def clean(self) -> list[Path]:
        """Remove what a crash left: temporary files, damaged parts, superseded parts.

        Returns:
            The damaged ones. In a large table (see `CHECKED_BYTES`) only truncated ones are found.
        """
        self._remove_temporaries()
        damaged = self._find_damaged()
        for path in damaged:
            path.unlink(missing_ok=True)
        self._remove_superseded()
        return damaged

    def _find_damaged(self) -> list[Path]:
        paths = self.paths()
        if len(paths) <= CHECKED_PARTS and sum(path.stat().st_size for path in paths) <= CHECKED_BYTES:
            return self.damaged_parts(paths)
        return [path for path in paths if self._read_facts(path) is None and not has_footer(path)]

    def _read_facts(self, path: Path) -> PartFacts | None:
        """The footer's facts, read once: a part never changes under its name."""
        if path not in self._facts:
            self._facts[path] = read_facts(path)
        return self._facts[path]

    def _remove_temporaries(self) -> None:
        for folder in (self.folder, *self._numbered_folders()):
            remove_own_temporaries(folder, PART_NAME)

    def _remove_superseded(self) -> None:
        """Keep one part per block: a crash between writing one and removing the older one leaves two."""
        for block, paths in self._paths_by_block().items():
            if len(paths) > 1:
                best = min((Part(path, block, self._read_facts(path)) for path in paths), key=self._rank)
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
            _path_of_part(entry)
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
                found[int(match[1])].append(_path_of_part(entry))
        return found

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for folder in (self.folder, *self._numbered_folders()):
            yield from _scan(folder)

    def _numbered_folders(self) -> list[Path]:
        """Folders of the blocks from `BLOCKS_PER_FOLDER` on."""
        return [
            Path(entry.path) for entry in _scan(self.folder) if entry.name.isdecimal() and entry.is_dir()
        ]

    def _fact_columns(self) -> list[str]:
        return [name for name in FACT_COLUMNS if name in self.schema.names]


def damaged_message(path: Path, why: str) -> str:
    """What to do about a part that cannot be read."""
    return (
        f"{path} is damaged ({why}): `sar-eval verify RUN --repair` removes damaged parts, then the "
        "command that wrote them (`sar-eval run`, `generate`, `judge` or `score`) makes them again"
    )


def _path_of_part(entry: os.DirEntry[str]) -> Path:
    try:
        is_file = entry.is_file()
    except OSError as error:  # a link to itself
        raise BadInput(f"{entry.path}: {error.strerror}: remove it, it is no part of ours") from error
    if not is_file:  # a pipe or a device: reading it may never end
        raise BadInput(f"{entry.path} is no regular file: remove it, it is no part of ours")
    return Path(entry.path)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInput(f"cannot list {folder}: {error.strerror}") from error
