"""Any range of rows of a Parquet file, without holding the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.storage.files import BATCH_ROWS, column_values, holds_bytes

BUFFER = 1 << 20  # bytes of each column that are read at a time: a row group may be larger than the memory
# What Arrow and Python raise for cells that cannot become Python values, as text that is not UTF-8.
UNREADABLE = (pa.ArrowInvalid, UnicodeDecodeError, OverflowError, ValueError)
BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that cannot be read, though those beside it can."""

    why: str


def group_starts(file: pq.ParquetFile) -> list[int]:
    """Number of the first row of each row group, then that of all rows."""
    metadata = file.metadata
    sizes = (int(metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups))
    return list(accumulate(sizes, initial=0))


class RowGroups:
    """Some columns of a Parquet file. Memory is that of a few thousand rows.

    Ranges that follow each other, with gaps or without, are read in one pass; a step back reads its row
    group anew. For one thread at a time.
    """

    def __init__(
        self, source: Path | BinaryIO, columns: Sequence[str] | None = None, name: str = ""
    ) -> None:
        """Open the file.

        Args:
            source: its path, or the opened file.
            columns: those to read; None for all.
            name: of the file in messages, where `source` is none.

        Raises:
            BadInput: it cannot be read as Parquet.
        """
        self.name, self.columns = name or str(source), columns
        try:
            self._file = pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER)
        except BROKEN as error:
            raise self._broken(error) from error
        self._starts = group_starts(self._file)
        self._group, self._rest = -1, iter(())
        self._first, self._batch = 0, pa.record_batch({})

    def __len__(self) -> int:
        return self._starts[-1]

    def shape(self) -> dict[str, bool]:
        """All columns of the file, each with whether there are bytes in it (images).

        Raises:
            BadInput: two columns have one name.
        """
        schema = self._file.schema_arrow
        if twice := [name for name in schema.names if schema.names.count(name) > 1]:
            raise BadInput(f"{self.name}: the column {twice[0]!r} is there twice")
        return {column.name: holds_bytes(column.type) for column in schema}

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any] | UnreadableRow]:
        """Rows of a range.

        Raises:
            BadInput: the file is damaged.
        """
        stop = min(stop, len(self))
        while start < stop:
            try:
                self._go_to(start)
            except (*BROKEN, StopIteration) as error:  # StopIteration: fewer rows than its footer says
                raise self._broken(error) from error
            part = self._batch.slice(start - self._first, stop - start)
            yield from _rows(part)
            start += part.num_rows

    def _go_to(self, row: int) -> None:
        """Make the held batch the one with this row."""
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._group, self._first = group, self._starts[group]
            self._batch = self._batch.slice(0, 0)
            self._rest = self._file.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=self.columns, use_threads=False
            )
        while row >= self._first + self._batch.num_rows:
            self._first += self._batch.num_rows
            self._batch = next(self._rest)

    def _broken(self, error: BaseException) -> BadInput:
        return BadInput(f"{self.name} is not a readable Parquet file: {error}")


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | UnreadableRow]:
    names = batch.schema.names
    try:
        columns = [column_values(column) for column in batch.columns]
    except UNREADABLE as error:
        if batch.num_rows > 1:
            return [row for n in range(batch.num_rows) for row in _rows(batch.slice(n, 1))]
        return [UnreadableRow(f"it cannot be read: {shorten(str(error))}")]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
