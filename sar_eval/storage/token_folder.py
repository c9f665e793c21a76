"""A folder of token shards while it is made, and its manifest: what `train tokenize` writes.

    tokenization.json       what decides the shards: tokenizer, options, places, digest of the plan
    plan.parquet            a row group for each block: files and rows of its pictures, after the spec
    shard-000012.parquet    rows of block 12: tokens, captions, height, width, key
    rejected/000012.jsonl   pictures of block 12 that have no row, each with the reason
    done/000012.json        figures of block 12, written last: the block is done
    manifest.json           shards, sizes, what was rejected; written when every block is done

All objects are functions of `tokenization.json` and the plan, so work done twice writes the same bytes. A
folder with `tokenization.json` and without `manifest.json` is not finished.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sar_eval.documents import convert, cut, parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.objects import ObjectMissing, ObjectStore
from sar_eval.storage.set_objects import object_errors
from sar_eval.types import Json

SPEC, PLAN, MANIFEST = "tokenization.json", "plan.parquet", "manifest.json"
GROUP_ROWS = 1000  # rows of a row group at most: what a shuffling reader holds
SHARD_FORMAT = "sar-eval-tokens/1"
_DONE = re.compile(r"done/(\d{6,})\.json", re.ASCII)
_PLAN_SCHEMA = pa.schema(
    [
        *(("place", pa.int32()), ("path", pa.string()), ("size", pa.int64()), ("first", pa.int64())),
        *(("stop", pa.int64()), ("rows", pa.int64()), ("sidecar", pa.string())),
        *(("sidecar_size", pa.int64()), ("captions", pa.list_(pa.string()))),
    ]
)


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part of a source that is read by itself.

    Attributes:
        place: number of the source.
        path: of the file, below the place.
        size: of the file in bytes.
        first, stop: row groups of a Parquet file; of a set, `first` is the object's number.
        rows: pictures in it, where that is known ahead; else 0.
        sidecar: the file with the captions of a picture.
        sidecar_size: of that file in bytes.
        captions: of a picture, where a table gave them.
    """

    place: int
    path: str
    size: int
    first: int = 0
    stop: int = 0
    rows: int = 0
    sidecar: str | None = None
    sidecar_size: int = 0
    captions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A picture as codes `[height * width]` in raster order; height and width in tokens."""

    key: str
    captions: tuple[str, ...]
    codes: NDArray[np.integer]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A picture (or `number` of them, from `key` on) that has no row, and why."""

    key: str
    reason: str
    detail: str = ""
    number: int = 1

    def to_json(self) -> dict[str, Json]:
        """As a line of `rejected`; what is no text in names of files and of members is escaped."""
        detail = self.detail.encode("utf-8", "backslashreplace").decode()
        return asdict(self) | {"detail": detail}


@dataclass(frozen=True, slots=True)
class BlockFigures:
    """What a done-record says of a block; no times, so that work done twice writes the same."""

    block: int
    rows: int
    tokens: int
    captions: int
    bytes: int
    digest: str
    sizes: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _ListedShard:
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class _Listed:
    """What of a manifest is needed to see that all shards are there."""

    shards: tuple[_ListedShard, ...]


class TokenFolder:
    """The objects of a folder of token shards."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def spec(self) -> Json:
        """What decides the shards; None if nothing was begun here.

        Raises:
            BadInput: it is broken.
        """
        return self._json(SPEC)

    def manifest(self) -> Json:
        """The manifest; None if the folder is not finished.

        Raises:
            BadInput: it is broken.
        """
        return self._json(MANIFEST)

    def begin(self, spec: Mapping[str, Json]) -> Json:
        """Store the spec unless one is there, and return what is: another driver may have been faster."""
        self.store.create(SPEC, json_bytes(spec))
        return self.spec()

    def keep_plan(self, plan: bytes) -> None:
        """Store the plan of the spec that is there: never that of another, which workers would read."""
        if not self.store.exists(PLAN):
            self.store.write(PLAN, plan)

    def units(self, block: int) -> list[Unit]:
        """What a block is made of.

        Raises:
            BadInput: the plan is damaged.
        """
        where = self.store.where(PLAN)
        with object_errors(where), self.store.open(PLAN) as file, pq.ParquetFile(file) as plan:
            return _units_of(plan, block)

    def first_change(self, plan: bytes) -> str:
        """In which file another plan first differs from the one that is stored, for messages.

        Raises:
            BadInput: the stored plan is damaged.
        """
        where = self.store.where(PLAN)
        with object_errors(where), self.store.open(PLAN) as file, pq.ParquetFile(file) as stored:
            now = pq.ParquetFile(io.BytesIO(plan))
            pairs = zip_longest(*(_all_units(each) for each in (stored, now)))
            return next((_change(before, after) for before, after in pairs if before != after), "")

    def commit(
        self,
        block: int,
        rows: Sequence[TokenRow],
        rejected: Sequence[Rejected],
        metadata: Mapping[str, str],
    ) -> BlockFigures:
        """Store a block's rows and rejections, then its done-record.

        Raises:
            StorageFailed: it cannot be stored.
        """
        data = shard_bytes(rows, metadata) if rows else b""
        if data:
            self.store.write(shard_name(block), data)
        if rejected:
            lines = b"".join(json_bytes(line.to_json()) for line in rejected)
            self.store.write(f"rejected/{block:06d}.jsonl", lines)
        figures = _figures(block, rows, rejected, data)
        self.store.write(f"done/{block:06d}.json", json_bytes(asdict(figures)))
        return figures

    def done(self) -> set[int]:
        """Numbers of the blocks that are done."""
        found = (_DONE.fullmatch(info.name) for info in self.store.list("done/"))
        return {int(match[1]) for match in found if match}

    def figures(self) -> Iterator[BlockFigures]:
        """The done-records, by number of the block.

        Raises:
            BadInput: one is broken.
        """
        for name, data in self.store.read_many(f"done/{block:06d}.json" for block in sorted(self.done())):
            where = self.store.where(name)
            yield convert(
                parse_json(data, where), BlockFigures, where, "remove it, then run the same command again"
            )

    def rejected(self, most: int) -> list[Rejected]:
        """The first rejected pictures, for messages."""
        found: list[Rejected] = []
        for info in self.store.list("rejected/"):
            where = self.store.where(info.name)
            lines = self.store.read(info.name).splitlines()[: most - len(found)]
            found += (convert(parse_json(line, where), Rejected, where) for line in lines)
            if len(found) >= most:
                break
        return found

    def finish(self, manifest: Mapping[str, Json]) -> None:
        """Write the manifest, which makes the folder a finished one."""
        self.store.write(MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())

    def _json(self, name: str) -> Json:
        try:
            return parse_json(self.store.read(name), self.store.where(name))
        except ObjectMissing:
            return None


def shard_name(block: int) -> str:
    """Of the object with a block's rows."""
    return f"shard-{block:06d}.parquet"


def plan_bytes(blocks: Iterable[Sequence[Unit]]) -> tuple[bytes, str, int]:
    """Blocks as a Parquet file with a row group each, a digest of what it says, and how many they are."""
    sink, digest, number = io.BytesIO(), hashlib.blake2b(digest_size=8), 0
    with pq.ParquetWriter(sink, _PLAN_SCHEMA) as writer:
        for units in blocks:
            rows = [asdict(unit) for unit in units]
            for row in rows:
                digest.update(json_bytes(row))
            digest.update(b"\n")
            writer.write_table(pa.Table.from_pylist(rows, schema=_PLAN_SCHEMA), row_group_size=len(rows))
            number += 1
    return sink.getvalue(), digest.hexdigest(), number


def shard_bytes(rows: Sequence[TokenRow], metadata: Mapping[str, str]) -> bytes:
    """Rows as a Parquet shard: codes in 2 bytes where the codebook allows it, else in 4."""
    sink, writer = io.BytesIO(), None
    with ExitStack() as stack:
        for first in range(0, len(rows), GROUP_ROWS):  # lists of Arrow have room for 2**31 codes
            table = _table(rows[first : first + GROUP_ROWS], metadata)
            writer = writer or stack.enter_context(_writer(sink, table.schema))
            writer.write_table(table, row_group_size=GROUP_ROWS)
    return sink.getvalue()


def _writer(sink: io.BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    # Codes are all but random: splitting their bytes saves what the upper ones share (see `set_objects`).
    return pq.ParquetWriter(
        sink,
        schema,
        use_dictionary=False,
        column_encoding={"tokens.list.element": "BYTE_STREAM_SPLIT"},
        compression="zstd",
        write_page_checksum=True,
    )


def _table(rows: Sequence[TokenRow], metadata: Mapping[str, str]) -> pa.Table:
    kind = pa.uint16() if int(metadata["codebook_size"]) <= 1 << 16 else pa.uint32()
    lengths = np.array([len(row.codes) for row in rows])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    codes = np.concatenate([row.codes for row in rows]).astype(kind.to_pandas_dtype())
    columns = {
        "tokens": pa.ListArray.from_arrays(offsets, pa.array(codes, kind)),
        "captions": pa.array([row.captions for row in rows], pa.list_(pa.string())),
        "height": pa.array([row.height for row in rows], pa.uint16()),
        "width": pa.array([row.width for row in rows], pa.uint16()),
        "key": pa.array([row.key for row in rows], pa.string()),
    }
    return pa.table(columns).replace_schema_metadata({"format": SHARD_FORMAT, **metadata})


def json_bytes(value: Mapping[str, Json]) -> bytes:
    """One line of JSON with sorted keys."""
    return (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()


def check_finished(store: ObjectStore) -> None:
    """Refuse to read token shards of which some are still to be made, or were lost since.

    Raises:
        BadInput: blocks are missing, or shards that the manifest lists.
    """
    manifest = TokenFolder(store).manifest()
    if manifest is None and store.exists(SPEC):
        raise BadInput(
            f"{store.uri} is not finished: run the same `sar-eval train tokenize` again to go on"
        )
    if isinstance(manifest, dict) and manifest.get("format") == SHARD_FORMAT:  # else it is anyone's
        listed = convert(manifest, _Listed, store.where(MANIFEST)).shards
        check_shards(store, {shard.name: shard.bytes for shard in listed})


def check_shards(store: ObjectStore, sizes: Mapping[str, int]) -> None:
    """Refuse a folder that has not all its shards, which would be another training in silence.

    Args:
        store: the folder.
        sizes: of the shards in bytes, by name.

    Raises:
        BadInput: naming the first one that is gone or has another size.
    """
    there = {info.name: info.size for info in store.list("shard-")}
    for name, size in sizes.items():
        if there.get(name) != size:
            what = "has another size than" if name in there else "is gone that is"
            raise BadInput(
                f"{store.where(cut(name))} {what} on record: copy it again; or remove {MANIFEST} and "
                "its done/*.json, and run the same `sar-eval train tokenize` again"
            )


def _units_of(plan: pq.ParquetFile, block: int) -> list[Unit]:
    rows = plan.read_row_group(block, use_threads=False).to_pylist()
    return [Unit(**row | {"captions": _as_tuple(row["captions"])}) for row in rows]


def _all_units(plan: pq.ParquetFile) -> Iterator[Unit]:
    return (unit for block in range(plan.num_row_groups) for unit in _units_of(plan, block))


def _change(before: Unit | None, after: Unit | None) -> str:
    if before is None or after is None:
        return f"{after.path} is new" if after else f"{before.path} is gone" if before else ""
    if (before.place, before.path) == (after.place, after.path):
        return f"{after.path} has another size or other captions"
    return f"{before.path} was where {after.path} is now"


def _as_tuple(captions: list[str] | None) -> tuple[str, ...] | None:
    return None if captions is None else tuple(captions)


def _figures(
    block: int, rows: Sequence[TokenRow], rejected: Sequence[Rejected], data: bytes
) -> BlockFigures:
    sizes: dict[str, int] = {}
    for row in rows:
        name = f"{row.height}x{row.width}"
        sizes[name] = sizes.get(name, 0) + 1
    reasons: dict[str, int] = {}
    for line in rejected:
        reasons[line.reason] = reasons.get(line.reason, 0) + line.number
    return BlockFigures(
        block=block,
        rows=len(rows),
        tokens=sum(len(row.codes) for row in rows),
        captions=sum(len(row.captions) for row in rows),
        bytes=len(data),
        digest=hashlib.blake2b(data, digest_size=8).hexdigest(),
        sizes=dict(sorted(sizes.items())),
        rejected=dict(sorted(reasons.items())),
    )
