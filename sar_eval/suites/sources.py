"""Rows of prompts from files of every format, and what was assumed about their columns."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sar_eval import tables
from sar_eval.documents import shorten
from sar_eval.encodings import read_text
from sar_eval.errors import BadInput
from sar_eval.suites.checks import describe_class
from sar_eval.types import SAFE_ID, safe_id

FORMATS = (*tables.FORMATS, ".parquet")
# Names of columns in the order of preference. `text`, `prompt`, `id`, `tag`, `checks` and `split` are ours:
# the others, and these in another case, count only in rows that have neither `text` nor `prompt`.
COLUMNS = {
    "text": ("text", "prompt", "prompts", "caption", "captions"),
    "id": ("id", "prompt_id", "item_id"),
    "tag": ("tag", "category"),
    "checks": ("checks",),
    "split": ("split",),
}
WORDS = ("prompts", "ids", "tags", "checks", "splits")  # for them, in notes
Row = dict[str, Any]
Place = int | Path  # line of the suite's file (row number in Parquet), or the prompt's own file
MAX_PROMPTS = 5_000_000  # about 1.5 GB; SAR_EVAL_MAX_PROMPTS allows more
STREAMED_FROM = MAX_PROMPTS  # rows of a Parquet file from which on it is never read as a whole


def read_prompt_rows(
    path: Path, notes: list[str], encoding: str | None = None
) -> Iterator[tuple[Place, Row]]:
    """Where a prompt stands, and its columns.

    Raises:
        BadInput: no such file or folder, none that can be read, or more than `MAX_PROMPTS` rows; names
            file and line.
    """
    limit = _limit()
    rows = _rows(path, notes, encoding, limit)
    yield from islice(rows, limit)
    if next(rows, None) is not None:
        raise _too_many(path, limit)


def _limit() -> int:
    value = os.environ.get("SAR_EVAL_MAX_PROMPTS", str(MAX_PROMPTS))
    if not (value.isascii() and value.isdecimal() and len(value) < 19 and int(value)):
        raise BadInput(f"SAR_EVAL_MAX_PROMPTS is {shorten(value)}: it must be a whole number from 1")
    return int(value)


def _too_many(path: Path, limit: int) -> BadInput:
    return BadInput(f"{path} has more than {limit:,} prompts: SAR_EVAL_MAX_PROMPTS=NUMBER allows more")


def _rows(path: Path, notes: list[str], encoding: str | None, limit: int) -> Iterator[tuple[Place, Row]]:
    suffix = path.suffix.lower()
    if path.is_dir():
        yield from _folder_rows(path, notes, encoding)
    elif suffix == ".parquet":
        yield from _parquet_rows(path, limit)
    elif suffix in FORMATS:
        yield from tables.read_rows(path, notes=notes, encoding=encoding)
    else:
        raise BadInput(f"{path}: a prompt file ends in {', '.join(FORMATS)}")


def _folder_rows(folder: Path, notes: list[str], encoding: str | None) -> Iterator[tuple[Place, Row]]:
    """Prompts of `ID.txt` files."""
    files = sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))
    if not files:
        raise BadInput(
            f"{folder} is a directory without prompts: a prompt file, or a folder of ID.txt files"
        )
    notes.append(f"{folder}: {len(files):,} prompts, one in each .txt file, ids are the files' names")
    doubts: list[str] = []
    for path in files:
        yield path, {"id": path.stem, "text": read_text(path, doubts, encoding).strip()}
    if doubts:
        notes.append(f"{doubts[0]}{f' (and {len(doubts) - 1} more files)' if doubts[1:] else ''}")


def _parquet_rows(path: Path, limit: int) -> Iterator[tuple[Place, Row]]:
    """Only the columns that are needed are read: images beside the prompts cost nothing."""
    from sar_eval.storage.files import read_batches

    if parquet_rows(path) > limit:  # a small file may hold any number of equal rows
        raise _too_many(path, limit)
    rows = (
        dict(zip(names, row, strict=True))
        for names, batch in read_batches(path, parquet_columns(path))
        for row in batch
    )
    yield from enumerate(rows, 1)


def parquet_rows(path: Path) -> int:
    """Number of rows of a Parquet file.

    Raises:
        BadInput: it is none.
    """
    from sar_eval.storage.files import parquet_shape

    return parquet_shape(path)[0]


def parquet_columns(path: Path) -> list[str]:
    """The columns of a Parquet file that a suite needs: images beside the prompts are not read.

    Raises:
        BadInput: it is no Parquet file, or has no column with prompts.
    """
    from sar_eval.storage.files import parquet_shape

    number, columns = parquet_shape(path)
    return wanted_columns(columns, str(path)) if number else []


def wanted_columns(columns: Mapping[str, bool], where: str) -> list[str]:
    """Those of a table's columns that a suite needs.

    Args:
        columns: each with whether there are bytes in it.
        where: the file, for the message.

    Raises:
        BadInput: there is no column with prompts.
    """
    if "include" in columns:  # a line of GenEval's metadata, all of which counts
        wanted = [name for name, holds_bytes in columns.items() if not holds_bytes]
    else:
        known = {name for names in COLUMNS.values() for name in names}
        wanted = [name for name in columns if name.strip().lower() in known]
    if not wanted:
        found = ", ".join(map(shorten, columns))
        raise BadInput(f"{where}: no column {', '.join(COLUMNS['text'])}; the columns are {found}")
    return wanted


@dataclass(slots=True)
class Assumptions:
    """What was assumed about a suite's columns, ids and classes, to be said in one note each."""

    # By the names of a row's columns: names of ours, each with one that may stand for it, the best first.
    headers: dict[tuple[str, ...], list[tuple[str, str]]] = field(default_factory=dict)
    renamed: set[tuple[str, str]] = field(default_factory=set)  # our columns and the file's
    unread: list[tuple[str, str]] = field(default_factory=list)  # the file's columns, and ours
    whole_ids: int = 0
    rewritten: int = 0  # ids
    examples: list[str] = field(default_factory=list)  # of rewritten ids
    classes: dict[str, str] = field(default_factory=dict)  # unknown ones, to the line of the first

    def notes(self, path: Path) -> Iterator[str]:
        """One sentence for each kind."""
        others = sorted((list(COLUMNS).index(ours), name) for ours, name in self.renamed if ours != name)
        if others:
            used = ", ".join(f"{WORDS[number]} from {shorten(name)}" for number, name in others[:9])
            yield f"{path}: columns are taken by other names: {used}"
        if self.unread:
            listed = ", ".join(f"{shorten(name)} (call it {ours})" for name, ours in self.unread)
            yield f"{path}: these columns are not read, as prompts have our name: {listed}"
        if self.whole_ids:
            yield f"{path}: {self.whole_ids:,} ids are numbers like 1.0, read as 1"
        if self.rewritten:
            listed = ", ".join(self.examples) + (", ..." if self.rewritten > len(self.examples) else "")
            yield f"{path}: {self.rewritten:,} ids were rewritten for file names: {listed}"
        if self.classes:
            some = [f"{where}: {describe_class(name)}" for name, where in list(self.classes.items())[:5]]
            more = ", ..." if len(self.classes) > 5 else ""
            yield f"classes that the judges geneval and shapes do not know: {'; '.join(some)}{more}"

    def look_at(self, row: Row) -> None:
        """Keep which columns of the first row are like ours, but not read, as the text has our name."""
        if row.get("text") or row.get("prompt"):
            unread = {ours: name for ours, name in reversed(_candidates(tuple(row))) if ours not in row}
            self.unread = [(name, ours) for ours, name in unread.items() if ours != "text"]

    def rename(self, row: Row) -> Row:
        """A row that has neither `text` nor `prompt`, with our names for its columns."""
        key = tuple(row)
        if key not in self.headers:
            self.headers[key] = _candidates(key)
        found: dict[str, str] = {}
        for ours, name in self.headers[key]:
            if row[name] not in (None, ""):
                found.setdefault(ours, name)
        if "text" in found:
            self.renamed.update(found.items())
        return {ours: row[name] for ours, name in found.items()}

    def prompt_id(self, value: Any, index: int, where: str) -> str:
        """The id of prompt `index`, safe as a file name; its number in the suite if it has none."""
        if value is None or value == "" or value != value:  # noqa: PLR0124 NaN, as pandas stores none
            return f"{index:05d}"
        if isinstance(value, list | dict | tuple | bytes):
            raise BadInput(f"{where}: the id must be text or a number, not {shorten(value)}")
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            self.whole_ids += 1
            value = int(value)
        if not SAFE_ID.fullmatch(name := str(value)):
            self.rewritten += 1
            if len(self.examples) < 3:
                self.examples.append(f"{shorten(name)} is {safe_id(name)}")
        return safe_id(name)


def _candidates(header: tuple[str, ...]) -> list[tuple[str, str]]:
    present = {name.strip().lower(): name for name in header}
    return [(ours, present[name]) for ours, names in COLUMNS.items() for name in names if name in present]
