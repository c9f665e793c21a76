"""A few rows of a folder of token shards, spread over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.storage.objects import ObjectStore, open_store
from sar_eval.storage.set_objects import object_errors
from sar_eval.storage.token_folder import TokenFolder, check_unfinished
from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class TokenSample:
    """A row: codes `[height * width]` in raster order; height and width in tokens."""

    key: str
    captions: tuple[str, ...]
    codes: NDArray[np.integer]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class TokenSamples:
    """Shards of a folder with their numbers of rows, what they say of themselves, and the manifest."""

    store: ObjectStore
    shards: Sequence[tuple[str, int]]
    metadata: dict[str, str]
    manifest: dict[str, Json]

    @property
    def number(self) -> int:
        """Rows in all."""
        return sum(rows for _, rows in self.shards)

    def rows(self, most: int, seed: int) -> list[TokenSample]:
        """So many rows at most, chosen evenly by seed; only their row groups are read.

        Raises:
            BadInput: a shard is damaged, or a row is no rectangle.
        """
        count = min(most, self.number)
        chosen = np.sort(np.random.default_rng(seed).choice(self.number, count, replace=False))
        found: list[TokenSample] = []
        first = 0
        for name, rows in self.shards:
            own = chosen[(chosen >= first) & (chosen < first + rows)] - first
            if len(own):
                found += self._of_shard(name, own)
            first += rows
        return found

    def _of_shard(self, name: str, numbers: NDArray[np.integer]) -> list[TokenSample]:
        where, found = self.store.where(name), []
        with object_errors(where), self.store.open(name) as file, pq.ParquetFile(file) as shard:
            first = 0
            for group in range(shard.num_row_groups):
                rows = shard.metadata.row_group(group).num_rows
                own = numbers[(numbers >= first) & (numbers < first + rows)] - first
                if len(own):
                    table = shard.read_row_group(group, use_threads=False).take(pa.array(own))
                    found += [_sample(row, f"{where}:{first + n}") for row, n in _numbered(table, own)]
                first += rows
        return found


def open_samples(place: str) -> TokenSamples:
    """The shards at a folder or address; no row is read yet.

    Raises:
        BadInput: there are none, the folder is not finished, or one is damaged.
    """
    store = open_store(place)
    folder = TokenFolder(store)
    check_unfinished(folder)
    names = [info.name for info in store.list("shard-") if info.name.endswith(".parquet")]
    if not names:
        raise BadInput(f"no shard-*.parquet in {place}: `sar-eval train tokenize` makes them")
    shards, metadata = [], dict[str, str]()
    for name in names:
        with object_errors(store.where(name)), store.open(name) as file, pq.ParquetFile(file) as shard:
            if "tokens" not in shard.schema_arrow.names:
                raise BadInput(f"{store.where(name)} has no column tokens: it holds no visual tokens")
            shards.append((name, shard.metadata.num_rows))
            raw = shard.schema_arrow.metadata or {}
            metadata = metadata or {key.decode(): value.decode() for key, value in raw.items()}
    return TokenSamples(store, shards, metadata, folder.manifest() or {})


def _numbered(table: pa.Table, numbers: NDArray[np.integer]) -> list[tuple[dict[str, Json], int]]:
    return list(zip(table.to_pylist(), numbers.tolist(), strict=True))


def _sample(row: dict[str, Json], where: str) -> TokenSample:
    """A row of the present schema, or of the one with `tokens` and `caption` of square pictures."""
    codes = np.array(row["tokens"], np.int64)
    height = row.get("height") or math.isqrt(len(codes))
    width = row.get("width") or height
    if height * width != len(codes):
        raise BadInput(f"{where}: {len(codes)} tokens are no picture of {height}x{width}")
    captions = row.get("captions") or [row.get("caption") or ""]
    return TokenSample(row.get("key") or row.get("draw") or where, tuple(captions), codes, height, width)
