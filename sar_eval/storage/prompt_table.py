"""The prompts of a run, in a Parquet file of row groups: any range is read without the others."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.storage.files import write_stream
from sar_eval.storage.row_groups import group_starts
from sar_eval.storage.schemas import PROMPTS
from sar_eval.types import SAFE_ID, Prompt

ROWS_PER_GROUP = 10_000
GROUPS_HELD = 4  # row groups in memory: neighbouring blocks share one


class LazyPrompts(Sequence[Prompt]):
    """A sequence of prompts of which only the range that is asked for is read."""

    def _range(self, start: int, stop: int) -> Iterator[Prompt]:
        """The prompts from `start` up to `stop`."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Prompt: ...

    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...

    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return list(self._range(start, stop))[::step]
        position = range(len(self))[index]
        return next(self._range(position, position + 1))


class PromptTable(LazyPrompts):
    """A suite on disk as a sequence of prompts. Memory is that of a few row groups, whatever its length."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            BadInput: it is no Parquet file with a run's prompts.
        """
        self.path = path
        with _named(path):
            self._file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
            if missing := set(PROMPTS.names) - set(self._file.schema_arrow.names):
                raise pa.ArrowInvalid(f"it has no column {min(missing)!r}")
        self._starts = group_starts(self._file)
        self._group = lru_cache(GROUPS_HELD)(self._read_group)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[Prompt]:
        for number in range(len(self._starts) - 1):
            yield from self._group(number)

    def columns(self) -> Iterator[dict[str, list[Any]]]:
        """All columns as lists, row group by row group: `checks` as the stored JSON text.

        Raises:
            BadInput: the file is damaged, or an id is not safe as a file name.
        """
        for number in range(len(self._starts) - 1):
            with _named(self.path):
                table = self._file.read_row_group(number, columns=PROMPTS.names, use_threads=False)
                _check_ids(table.column("id"))
                columns: dict[str, list[Any]] = table.to_pydict()
            yield columns

    def _range(self, start: int, stop: int) -> Iterator[Prompt]:
        number = bisect_right(self._starts, start) - 1
        while number < len(self._starts) - 1 and (first := self._starts[number]) < stop:
            yield from self._group(number)[max(0, start - first) : stop - first]
            number += 1

    def _read_group(self, number: int) -> list[Prompt]:
        with _named(self.path):
            table = self._file.read_row_group(number, columns=PROMPTS.names, use_threads=False)
            _check_ids(table.column("id"))
            columns = (table.column(name).to_pylist() for name in ("id", "text", "tag", "split", "checks"))
            return [
                Prompt(id_, text, tag, json.loads(checks) if checks else None, split)
                for id_, text, tag, split, checks in zip(*columns, strict=True)
            ]


def write_prompts(prompts: Iterable[Prompt], path: Path) -> str:
    """Write prompts, row group by row group, and return the digest of the file.

    Raises:
        StorageFailed: it cannot be written.
    """
    rest = iter(prompts)
    with (
        write_stream(path) as file,
        pq.ParquetWriter(file, PROMPTS, write_page_checksum=True) as writer,
    ):
        while group := list(islice(rest, ROWS_PER_GROUP)):
            writer.write_table(_table(group))
    return file_digest(path)


def file_digest(path: Path) -> str:
    """Digest of a file's bytes.

    Raises:
        BadInput: it cannot be read.
    """
    with _named(path):
        if path.exists() and not path.is_file():  # a pipe or a device: reading it may never end
            raise OSError("it is no regular file")
    with _named(path), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _table(prompts: Sequence[Prompt]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        name: [getattr(prompt, name) for prompt in prompts] for name in ("id", "text", "tag", "split")
    }
    columns["checks"] = [None if p.checks is None else json.dumps(p.checks) for p in prompts]
    return pa.table(columns, schema=PROMPTS)


def _check_ids(ids: pa.ChunkedArray) -> None:
    """An id becomes a file name in exports, so it is checked wherever it is read."""
    safe = pc.fill_null(pc.match_substring_regex(ids, f"^{SAFE_ID.pattern}$"), fill_value=False)
    if not pc.all(safe).as_py():
        unsafe = ids.filter(pc.invert(safe))[0].as_py()
        raise ValueError(f"the id {shorten(unsafe)} is not safe as a file name")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what Arrow and JSON raise on bad bytes into an error that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, RecursionError, TypeError) as error:
        raise BadInput(f"{path} is no readable table of prompts: {error}") from error
