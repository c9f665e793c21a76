"""Removals of a set: the keys of kept draws that repeat others, as objects beside the set's own.

    dedup/phash-<digest>.parquet   `row`, `index`, `duplicate_of` (ROW/INDEX of the draw that stays)

There is one object for each way to find repeats (`METHODS`) that was used; readers leave out the draws of
all of them. No data object is written anew, and an object that is deleted brings its draws back.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import ImageSet, digest_of
from sar_eval.storage.objects import ObjectStore
from sar_eval.storage.set_objects import object_errors, read_columns, read_manifest
from sar_eval.storage.set_rows import BlockRecord

METHODS = (
    "pixels",
    "phash",
    "embedding",
)  # also the manifest's column; each heeds removals of those before
NAME = re.compile(rf"dedup/({'|'.join(METHODS)})-[0-9a-f]{{16}}\.parquet")
INDEX_BITS = 20  # of a key, behind the row
DIGEST_BYTES = 16
VERIFY = "`sar-eval synth verify` looks at all objects"
Values = NDArray[Any]
Keys = NDArray[np.uint64]  # row * 2**INDEX_BITS + index


@dataclass(frozen=True, slots=True)
class KeptColumn:
    """A column of the manifest, of all kept draws that have a value there.

    Attributes:
        keys: ascending.
        values: `[n]` uint64 of hashes, `[n]` 16-byte strings of digests, `[n, D]` float16 of embeddings.
        kept: how many draws are kept, with a value or without.
    """

    keys: Keys
    values: Values
    kept: int


def read_kept(store: ObjectStore, method: str, progress: Callable[[int, int], None]) -> KeptColumn:
    """A column of all kept draws; of each manifest object only the columns that are needed stay in memory.

    Args:
        store: of the set.
        method: one of `METHODS`.
        progress: told how many of how many manifest objects are read.

    Raises:
        BadInput: there is no set, or a manifest object is damaged or not its record's.
    """
    image_set = ImageSet(store)
    image_set.spec()
    records = [record for record in image_set.records() if record.fates.get("kept", 0)]
    reading = _Reading(sum(record.fates["kept"] for record in records))
    found = store.read_many(record.manifest for record in records)
    for done, (record, (name, data)) in enumerate(zip(records, found, strict=True), 1):
        reading.add(record, *_kept_of(data, method, store.where(name)), store.where(name))
        progress(done, len(records))
    return reading.column(method)


class _Reading:
    """Fills arrays of the size that the records name, so that nothing is copied at the end."""

    def __init__(self, kept: int) -> None:
        self.kept, self.read = kept, 0
        self.keys = np.empty(kept, np.uint64)
        self.values: Values | None = None

    def add(self, record: BlockRecord, kept: int, keys: Keys, values: Values, where: str) -> None:
        """Add what a manifest object says."""
        stop = self.read + len(keys)
        if kept != record.fates["kept"]:
            raise BadInput(f"{where} has {kept} kept draws, its record {record.fates['kept']}; {VERIFY}")
        if not len(keys):
            return
        if self.values is None:
            self.values = np.empty((self.kept, *values.shape[1:]), values.dtype)
        if values.shape[1:] != self.values.shape[1:]:
            raise BadInput(f"{where} has embeddings of another size than those before it; {VERIFY}")
        before = self.keys[max(self.read - 1, 0) : self.read]
        if np.any(np.diff(np.concatenate([before, keys]).astype(np.int64)) <= 0):
            raise BadInput(f"{where}: its draws are not in order; {VERIFY}")
        self.keys[self.read : stop], self.values[self.read : stop] = keys, values
        self.read = stop

    def column(self, method: str) -> KeptColumn:
        """All of it."""
        values = _no_values(method) if self.values is None else self.values[: self.read]
        return KeptColumn(self.keys[: self.read], values, self.kept)


def _kept_of(data: bytes, method: str, where: str) -> tuple[int, Keys, Values]:
    """How many draws of a manifest object are kept, and keys and values of those that have a value."""
    table = read_manifest(data, ["row", "index", "fate", method], where)
    with object_errors(where):
        table = table.filter(pc.equal(table["fate"], "kept"))
        kept, table = len(table), table.filter(pc.is_valid(table[method]))
        return kept, _keys(table, where), _values(table[method], method, where)


def _keys(table: pa.Table, where: str) -> Keys:
    rows, indices = table["row"].to_numpy(), table["index"].to_numpy()
    if len(rows) and (rows.min() < 0 or rows.max() >= 2 ** (63 - INDEX_BITS)):
        raise BadInput(f"{where} has a row number that no prompt file has; {VERIFY}")
    if len(rows) and (indices.min() < 0 or indices.max() >= 2**INDEX_BITS):
        raise BadInput(f"{where} has an index that no draw has; {VERIFY}")
    return np.asarray(rows, np.uint64) << np.uint64(INDEX_BITS) | np.asarray(indices, np.uint64)


def _values(column: pa.ChunkedArray, method: str, where: str) -> Values:
    if method == "phash":
        return np.asarray(column.cast(pa.uint64()).to_numpy())
    values = column.to_pylist()
    if len({len(value) for value in values} | ({DIGEST_BYTES} if method == "pixels" else set())) > 1:
        raise BadInput(f"{where}: its column {method} has values of several sizes; {VERIFY}")
    if method == "pixels":
        return np.frombuffer(b"".join(values), f"S{DIGEST_BYTES}")
    size = len(values[0]) if values else 0
    if size % 2:
        raise BadInput(f"{where}: its embeddings have an odd number of bytes; {VERIFY}")
    return np.frombuffer(b"".join(values), np.float16).reshape(len(values), size // 2)


def _no_values(method: str) -> Values:
    return {"pixels": np.empty(0, f"S{DIGEST_BYTES}"), "phash": np.empty(0, np.uint64)}.get(
        method, np.empty((0, 0), np.float16)
    )


def removed_by(store: ObjectStore, methods: Iterable[str]) -> Keys:
    """The keys that these methods removed, ascending.

    Raises:
        BadInput: an object is damaged.
    """
    wanted, found = set(methods), [np.empty(0, np.uint64)]
    for name in removal_names(store, wanted):
        where = store.where(name)
        table = read_columns(io.BytesIO(store.read(name)), ["row", "index"], where)
        found.append(_keys(table, where))
    return np.unique(np.concatenate(found))


def removal_names(store: ObjectStore, methods: Iterable[str]) -> list[str]:
    """The objects that these methods wrote."""
    wanted = set(methods)
    named = ((info.name, NAME.fullmatch(info.name)) for info in store.list("dedup/"))
    return [name for name, match in named if match and match[1] in wanted]


def store_removals(
    store: ObjectStore, method: str, keys: Keys, repeated: Keys, facts: Mapping[str, str]
) -> str:
    """Put a method's removals in the place of its earlier ones; the object's name, "" if nothing goes.

    Args:
        store: of the set.
        method: one of `METHODS`.
        keys: of the draws that go, ascending.
        repeated: the key of the draw that stays, for each.
        facts: how they were found, for the object's metadata.

    Raises:
        StorageFailed: it cannot be stored.
    """
    name = ""
    if len(keys):
        data = _removals_object(keys, repeated, {"method": method, **facts})
        name = f"dedup/{method}-{digest_of(data)}.parquet"
        store.write(name, data)
    store.delete([old for old in removal_names(store, [method]) if old != name])
    return name


def _removals_object(keys: Keys, repeated: Keys, facts: Mapping[str, str]) -> bytes:
    rows, indices = _parts(keys)
    names = pc.binary_join_element_wise(*(part.cast(pa.string()) for part in _parts(repeated)), "/")
    table = pa.table({"row": rows, "index": indices, "duplicate_of": names})
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(dict(sorted(facts.items()))),
        buffer,
        version="2.6",
        compression="zstd",
        row_group_size=1 << 20,
        use_dictionary=False,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def _parts(keys: Keys) -> tuple[pa.Array, pa.Array]:
    """Row and index of each key."""
    rows = (keys >> np.uint64(INDEX_BITS)).astype(np.int64)
    return pa.array(rows), pa.array((keys & np.uint64(2**INDEX_BITS - 1)).astype(np.int32))
