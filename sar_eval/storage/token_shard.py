"""One shard of captioned visual tokens: a Parquet file, of ours or of a set, or a tar of a set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.storage.objects import ObjectStore
from sar_eval.storage.row_groups import group_starts
from sar_eval.storage.set_objects import object_errors, read_data_object
from sar_eval.storage.set_reader import DataPart, SetReader, tar_table
from sar_eval.storage.token_rows import TokenColumns, TokenRows, as_numpy, sizes_in, square, token_rows
from sar_eval.storage.webdataset_tar import read_tar_with_facts

Size = tuple[int, int]  # height and width in tokens
OF_SETS = TokenColumns("tokens", "text", (), ("row", "index"))
INDICES = 1 << 20  # draws of one prompt of a set are fewer
NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What a shard says of itself.

    Attributes:
        rows: of each row group, less what was removed from a set.
        metadata: whose codes they are.
        sizes: of its pictures.
        codes: the lowest and the highest; None where the footer has no statistics.
    """

    rows: tuple[int, ...]
    metadata: dict[str, str]
    sizes: frozenset[Size]
    codes: tuple[int, int] | None


class Shard(Protocol):
    """A shard; it pickles."""

    @property
    def where(self) -> str:
        """Its address."""

    def facts(self) -> ShardFacts:
        """What it says of itself, without its codes being read.

        Raises:
            BadInput: it is damaged, or no shard of tokens.
        """

    def read(self, group: int, known: int | None) -> TokenRows:
        """The rows of a row group.

        Args:
            group: its number.
            known: how many codes there are.

        Raises:
            BadInput: see `token_rows`.
        """


@dataclass(slots=True)
class ParquetShard:
    """A Parquet file.

    Attributes:
        store, name: where it is.
        of_set: whether it is a data object of a set.
        removed: keys of removed draws of the set, ascending (see `keys_of`).
    """

    store: ObjectStore
    name: str
    of_set: bool = False
    removed: NDArray[np.int64] = field(default_factory=lambda: NOTHING)

    @property
    def where(self) -> str:
        """Its address."""
        return self.store.where(self.name)

    def facts(self) -> ShardFacts:
        """See `Shard`."""
        with self.opened() as file:
            columns = self.columns(file.schema_arrow)
            raw = file.schema_arrow.metadata or {}
            metadata = {key.decode(): value.decode() for key, value in raw.items()}
            groups = range(file.metadata.num_row_groups)
            sizes = frozenset[Size]().union(*(self._sizes(file, columns, group) for group in groups))
            rows = tuple(self._rows(file, group) for group in groups)
            return ShardFacts(rows, metadata, sizes, _code_range(file, columns.tokens))

    @contextmanager
    def opened(self, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        """The file, for a moment; its footer is read unless it is given.

        Raises:
            BadInput: it is missing, or no Parquet file.
        """
        with (
            object_errors(self.where),
            self.store.open(self.name) as source,
            pq.ParquetFile(source, metadata=footer, page_checksum_verification=True) as file,
        ):
            yield file

    def columns(self, schema: pa.Schema) -> TokenColumns:
        """Which columns hold what.

        Raises:
            BadInput: one is missing, or tokens are no lists of whole numbers.
        """
        names = set(schema.names)
        captions = "captions" if "captions" in names else "caption"
        size = ("height", "width") if "height" in names or "width" in names else ()
        key = tuple(name for name in ("key", "draw") if name in names)[:1]
        found = OF_SETS if self.of_set else TokenColumns("tokens", captions, size, key)
        if missing := sorted(set(found.names) - names):
            mend = ": make the set with --keep tokens or both" if self.of_set else ""
            raise BadInput(f"{self.where} has no column {', '.join(missing)}{mend}")
        kind = schema.field("tokens").type
        if not hasattr(kind, "value_type") or not pa.types.is_integer(kind.value_type):
            raise BadInput(
                f"{self.where} cannot be read as a shard of training data: its tokens are {kind}, not "
                "lists of whole numbers"
            )
        return found

    def _rows(self, file: pq.ParquetFile, group: int) -> int:
        if not len(self.removed):
            return int(file.metadata.row_group(group).num_rows)
        return int(self._kept(file.read_row_group(group, list(OF_SETS.key), use_threads=False)).sum())

    def _kept(self, table: pa.Table) -> NDArray[np.bool_]:
        rows, indices = (as_numpy(table[name].combine_chunks()) for name in OF_SETS.key)
        return ~np.isin(keys_of(rows, indices, self.where), self.removed)

    def _sizes(self, file: pq.ParquetFile, columns: TokenColumns, group: int) -> frozenset[Size]:
        """Sizes of the pictures of a row group: by its statistics where they are all the same."""
        facts = file.metadata.row_group(group)
        if not facts.num_rows:
            return frozenset()
        if not columns.size:
            tokens, rest = divmod(_leaf(file, group, columns.tokens).num_values, facts.num_rows)
            if rest:
                raise BadInput(f"{self.where}: rows of several lengths, but no columns height and width")
            return frozenset([square(tokens, self.where)])
        bounds = [_bounds(_leaf(file, group, name)) for name in columns.size]
        if all(found and found[0] == found[1] for found in bounds):
            return frozenset([tuple(found[0] for found in bounds if found)])  # type: ignore[list-item]
        table = file.read_row_group(group, list(columns.size), use_threads=False)
        heights, widths = sizes_in(table, columns, self.where)
        return frozenset(zip(heights.tolist(), widths.tolist(), strict=True))

    def read(self, group: int, known: int | None) -> TokenRows:
        """See `Shard`."""
        with self.opened() as file:
            return self.read_from(file, group, known)

    def read_from(self, file: pq.ParquetFile, group: int, known: int | None) -> TokenRows:
        """The rows of a row group of the opened file.

        Raises:
            BadInput: see `token_rows`.
        """
        with object_errors(self.where):
            columns = self.columns(file.schema_arrow)
            table = file.read_row_group(group, columns.names, use_threads=False)
            if len(self.removed):
                table = table.filter(pa.array(self._kept(table)))
            return token_rows(table, columns, known, self.where, group_starts(file)[group])


@dataclass(frozen=True, slots=True)
class TarShard:
    """A tar of a set: one group of rows, as there is no way to the middle of it."""

    reader: SetReader
    part: DataPart
    removed: NDArray[np.int64]

    @property
    def where(self) -> str:
        """Its address."""
        return self.reader.store.where(self.part.name)

    def facts(self) -> ShardFacts:
        """See `Shard`. Read are the first picture, and where some were removed all of them."""
        with self.reader.open_part(self.part) as file:
            first, row = next(read_tar_with_facts(file, self.where))
        if row.tokens is None:
            raise BadInput(f"{self.where} has no tokens: make the set with --keep tokens or both")
        rows = len(self._table()) if len(self.removed) else self.part.rows
        return ShardFacts((rows,), first.made_with, frozenset([square(len(row.tokens), self.where)]), None)

    def _table(self) -> pa.Table:
        with self.reader.open_part(self.part) as file:
            rows = read_data_object(file, PurePosixPath(self.part.name).suffix, self.where)
            table = tar_table(rows, OF_SETS.names)
        numbers, indices = (as_numpy(table[name].combine_chunks()) for name in OF_SETS.key)
        return table.filter(pa.array(~np.isin(keys_of(numbers, indices, self.where), self.removed)))

    def read(self, group: int, known: int | None) -> TokenRows:  # noqa: ARG002
        """See `Shard`."""
        table = self._table()
        with object_errors(self.where):
            return token_rows(table, OF_SETS, known, self.where)


def shards_of_set(reader: SetReader) -> Iterator[Shard]:
    """The data objects of a set.

    Raises:
        BadInput: a record is broken, or its pictures are no squares.
    """
    _refuse_other_shapes(reader)
    keys = np.array(list(reader.removed()), np.int64).reshape(-1, 2)
    removed = np.unique(keys_of(keys[:, 0], keys[:, 1], reader.store.uri))
    for part in reader.parts():
        if part.name.endswith(".tar"):
            yield TarShard(reader, part, removed)
        else:
            yield ParquetShard(reader.store, part.name, True, removed)


def _refuse_other_shapes(reader: SetReader) -> None:
    """Rows of a set do not say their size: 4 x 16 tokens would be taken for 8 x 8."""
    run = reader.spec.get("run")
    protocol = run.get("protocol") if isinstance(run, dict) else None
    if isinstance(protocol, dict) and (width := protocol.get("width")):
        raise BadInput(
            f"{reader.store.uri} has pictures of {width}x{protocol.get('height')} pixels (width x height), "
            "and tokens of sets are read as squares: keep pixels (--keep pixels or both), and make tokens "
            "of them by `sar-eval train tokenize`"
        )


def keys_of(rows: NDArray[np.int64], indices: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    """Row of the prompt and index of the draw as one number.

    Raises:
        BadInput: they are larger than any set has them.
    """
    if len(rows) and (
        rows.max() >= 1 << 43 or indices.max() >= INDICES or min(rows.min(), indices.min()) < 0
    ):
        raise BadInput(f"{where}: a key of a draw is out of range")
    return rows.astype(np.int64) * INDICES + indices


def _leaf(file: pq.ParquetFile, group: int, name: str) -> pq.ColumnChunkMetaData:
    """Facts of a column, or of the elements of a column of lists."""
    facts = file.metadata.row_group(group)
    columns = (facts.column(number) for number in range(facts.num_columns))
    return next(c for c in columns if c.path_in_schema.split(".")[0] == name)


def _bounds(column: pq.ColumnChunkMetaData) -> tuple[int, int] | None:
    found = column.statistics
    return (int(found.min), int(found.max)) if found is not None and found.has_min_max else None


def _code_range(file: pq.ParquetFile, name: str) -> tuple[int, int] | None:
    groups = [g for g in range(file.metadata.num_row_groups) if file.metadata.row_group(g).num_rows]
    found = [_bounds(_leaf(file, group, name)) for group in groups]
    bounds = [bound for bound in found if bound]
    if not bounds or len(bounds) < len(found):
        return None
    return min(low for low, _ in bounds), max(high for _, high in bounds)
