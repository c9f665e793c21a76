"""Any range of rows of a Parquet file, without reading the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput

GROUPS_HELD = 2  # row groups in memory: neighbouring ranges share one


def group_starts(file: pq.ParquetFile) -> list[int]:
    """Number of the first row of each row group, then that of all rows."""
    metadata = file.metadata
    sizes = (int(metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups))
    return list(accumulate(sizes, initial=0))


class RowGroups:
    """Some columns of a Parquet file. Memory is that of these columns in one or two row groups."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Open the file.

        Raises:
            BadInput: it cannot be read as Parquet.
        """
        self.path, self.columns = path, list(columns)
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BadInput(f"{path} is not a readable Parquet file: {error}") from error
        self._starts = group_starts(self._file)
        self._group = lru_cache(GROUPS_HELD)(self._read_group)

    def __len__(self) -> int:
        return self._starts[-1]

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Rows of a range.

        Raises:
            BadInput: they cannot be read.
        """
        number = bisect_right(self._starts, start) - 1
        while number < len(self._starts) - 1 and (first := self._starts[number]) < stop:
            begin = max(0, start - first)
            yield from self._slice(number, begin, stop - first - begin)
            number += 1

    def _slice(self, number: int, begin: int, length: int) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = self._group(number).slice(begin, length).to_pylist()
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise BadInput(f"{self.path} is not a readable Parquet file: {error}") from error
        return rows

    def _read_group(self, number: int) -> pa.Table:
        return self._file.read_row_group(number, columns=self.columns, use_threads=False)
