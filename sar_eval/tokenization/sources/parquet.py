"""Pictures in Parquet files: of `datasets`, of `train scenes`, of anyone's export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sar_eval.storage.objects import READERS, ObjectInfo, ObjectStore
from sar_eval.storage.parquet_pictures import LostRows, find_columns, group_rows, read_pictures
from sar_eval.storage.token_folder import Rejected, Unit
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.tokenization.sources.source import Found, SourcePicture, safe_key


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """Files of one place; see `Source`."""

    number: int
    name: str
    store: ObjectStore
    files: Sequence[ObjectInfo]
    options: TokenizeOptions

    def units(self) -> Iterator[Unit]:
        """One for each row group. Footers are read several at a time."""
        self._check_columns(self.files[0].name)
        with ThreadPoolExecutor(READERS, thread_name_prefix="footer") as pool:
            for file, groups in zip(self.files, pool.map(self._groups, self.files), strict=True):
                for group, rows in enumerate(groups):
                    if rows:
                        yield Unit(self.number, file.name, file.size, group, group + 1, rows)

    def without_listing(self) -> ParquetSource:
        """See `Source`."""
        return replace(self, files=())

    def read(self, units: Sequence[Unit]) -> Iterator[Found]:
        """Row groups that follow each other in a file are read together."""
        for unit in _joined(units):
            yield from self._read(unit)

    def _read(self, unit: Unit) -> Iterator[Found]:
        options, where = self.options, self.store.where(unit.path)
        with self.store.open(unit.path) as file:
            groups = range(unit.first, unit.stop)
            for row in read_pictures(file, where, groups, options.image_column, options.caption_columns):
                key = safe_key(self.name, f"{unit.path}:{row.row}")
                if isinstance(row, LostRows):
                    yield Rejected(key, "unreadable", f"{row.number} rows: {row.why}", row.number)
                elif not row.image:
                    yield Rejected(key, "no_picture")
                else:
                    yield SourcePicture(key, row.image, row.captions)

    def _groups(self, file: ObjectInfo) -> list[int]:
        with self.store.open(file.name) as opened:
            return group_rows(opened, self.store.where(file.name))

    def _check_columns(self, name: str) -> None:
        with self.store.open(name) as file:
            find_columns(
                file, self.store.where(name), self.options.image_column, self.options.caption_columns
            )


def _joined(units: Sequence[Unit]) -> Iterator[Unit]:
    last: Unit | None = None
    for unit in units:
        if last and last.path == unit.path and last.stop == unit.first:
            last = Unit(last.place, last.path, last.size, last.first, unit.stop, last.rows + unit.rows)
            continue
        if last:
            yield last
        last = unit
    if last:
        yield last
