"""One part on disk: how its Parquet file is written, named, read and checked.

The digest in a part's name is of the file's bytes. In a table with images it leaves the images out: the
footer, which it covers, has a digest of each of them. So each image is hashed once, other columns are
checked without reading images, and a verdict names the image that it is on.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.storage.files import publish, storage_errors, sync_file
from sar_eval.storage.schemas import PartFacts, Row, image_digest

# A Parquet row group is the minimum that is read for one image, and each costs time when columns are
# read: of large images a group has so many rows, of small ones as many as make up so many bytes.
ROWS_PER_GROUP, BYTES_PER_GROUP = 16, 4_000_000
PART_NAME = re.compile(r"part-(\d{6,18})-([0-9a-f]{16})\.parquet")
FACTS, IMAGES = b"sar_eval.part", b"sar_eval.images"  # keys of the footer's metadata
# In Thrift's compact protocol a value follows its key after a field header and a length.
FACTS_START = re.compile(re.escape(FACTS) + rb"\x18[\x80-\xff]*[\x00-\x7f]([0-9a-f]{16}) ")
UNIQUE = ("key", "image.bytes", "image.path")  # columns without repeated values
OPTIONAL = ("provenance", "image_digest")  # columns that earlier versions did not write
HASHING_THREADS = 2  # hashing releases the GIL
SMALL = 1_000_000  # bytes of a part up to which it is read whole for any column
UNREADABLE = (pa.ArrowException, OSError, ValueError, msgspec.MsgspecError)


def write_part(folder: Path, block: int, rows: Sequence[Row], schema: pa.Schema, facts: PartFacts) -> Path:
    """Write the rows of a block as a part and return its path; a crash leaves a temporary file at most.

    Raises:
        StorageFailed: it cannot be written.
    """
    temporary = folder / f"part-{block:06d}-{'0' * 16}.parquet.{os.getpid()}.tmp"
    with storage_errors(folder / f"part-{block:06d}"):
        try:
            _write(temporary, rows, schema, facts)
            path = folder / f"part-{block:06d}-{_digest_in_name(temporary)}.parquet"
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _write(path: Path, rows: Sequence[Row], schema: pa.Schema, facts: PartFacts) -> None:
    """Images are compressed already: doing it again costs time and gains nothing.

    They are hashed, and what is written goes to the disk, in threads beside the encoding of the next rows.
    """
    leaves, images = _leaves(schema), "image" in schema.names
    size = _rows_per_group(rows) if images else max(1, len(rows))
    text = json.dumps(asdict(facts))  # in ASCII
    with (
        ThreadPoolExecutor(HASHING_THREADS) as hashing,
        ThreadPoolExecutor(1) as flushing,
        pa.OSFile(str(path), "wb") as sink,
        path.open("rb") as written,
        pq.ParquetWriter(
            sink,
            schema,
            compression={name: "none" if name == "image.bytes" else "zstd" for name in leaves},
            use_dictionary=[name for name in leaves if name not in UNIQUE],
            write_statistics=False,
            write_page_checksum=not images,
        ) as writer,
    ):
        digests = hashing.map(_image_digest, rows) if images else None
        flushed = []
        for start in range(0, len(rows), size):
            writer.write_table(pa.Table.from_pylist(list(rows[start : start + size]), schema=schema))
            if start + size < len(rows):  # the rest is synced with the file as a whole
                flushed.append(flushing.submit(sync_file, written))
        metadata = {FACTS: f"{_digest(text.encode())} {text}".encode()}
        if digests is not None:
            metadata[IMAGES] = msgspec.json.encode(list(digests))
        writer.add_key_value_metadata(metadata)
        for flush in flushed:
            flush.result()


def _rows_per_group(rows: Sequence[Row]) -> int:
    size = sum(len(row["image"]["bytes"] or b"") for row in rows if row["image"])
    return max(ROWS_PER_GROUP, BYTES_PER_GROUP * len(rows) // max(size, 1))


def _image_digest(row: Row) -> str | None:
    return image_digest(row["image"]["bytes"]) if row["image"] else None


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's names of the columns."""
    leaves = []
    for column in schema:
        if pa.types.is_struct(column.type):
            leaves += [f"{column.name}.{child.name}" for child in column.type]
        elif pa.types.is_list(column.type):
            leaves.append(f"{column.name}.list.element")
        else:
            leaves.append(column.name)
    return leaves


def _open(source: Any, **options: bool) -> pq.ParquetFile:
    """Without threads that read ahead: parts are small, and a process must not end while one reads."""
    return pq.ParquetFile(source, pre_buffer=False, **options)


class PartFile:
    """An open part: what its footer says, and columns of it. A context manager.

    Raises:
        ArrowInvalid: on entering, if it cannot be opened.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema

    def __enter__(self) -> PartFile:
        with ExitStack() as opened:
            raw = opened.enter_context(self.path.open("rb"))
            # A small part is read once, as a whole; of a large one what is needed, by seeking.
            self._is_small = os.fstat(raw.fileno()).st_size <= SMALL
            data = raw.read() if self._is_small else b""
            self._data: BinaryIO = io.BytesIO(data) if self._is_small else raw
            source = pa.BufferReader(data) if self._is_small else raw
            checked = _open(source, page_checksum_verification=not self._is_small)
            self._file = opened.enter_context(checked)
            self.facts = _facts_in(self._file.metadata)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def read(self, names: Sequence[str]) -> pa.Table:
        """Columns, checked by the part's digest; those that an earlier version did not write are null.

        Raises:
            ArrowInvalid: a byte of what was read is not what was written, or a column is missing.
        """
        ranges, images = _image_ranges(self._file.metadata), "image" in names
        _check_text(self.path, self._data, ranges, whole=images or self._is_small)
        if images and ranges and not _images_match(self._file):
            raise pa.ArrowInvalid("the bytes of an image do not match its digest")
        stored = set(self._file.schema_arrow.names)
        table = self._file.read(columns=[name for name in names if name in stored], use_threads=False)
        return _with_absent(table, list(names), self.schema)


def _check_text(path: Path, file: BinaryIO, ranges: Sequence[tuple[int, int]], *, whole: bool) -> None:
    """Check the digest in the name; of a large part of an earlier version only if it is read as a whole."""
    if not ranges and not whole:
        return  # its pages have checksums
    if _digest_of(file, ranges) != path.stem[-16:]:
        raise pa.ArrowInvalid("its bytes do not match the digest in its name")


def _with_absent(table: pa.Table, names: list[str], schema: pa.Schema) -> pa.Table:
    for name in names:
        if name in table.schema.names:
            continue
        if name not in OPTIONAL:
            raise pa.ArrowInvalid(f"it has no column {name!r}")
        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    table = table.select(names).replace_schema_metadata(None)
    wanted = pa.schema([schema.field(name) for name in names])
    return table if table.schema == wanted else table.cast(wanted)


def read_facts(path: Path) -> PartFacts | None:
    """The footer's facts; None if it has none, or is damaged.

    They are searched for in the footer's bytes: parsing it first, with the description of every column
    chunk, takes ten times as long. Their digest tells that the right bytes were found.
    """
    with suppress(*UNREADABLE):
        footer = _read_footer(path)
        if start := FACTS_START.search(footer):
            return _checked_facts(start[1], _json_at(footer[start.end() :]))
    return None


def _read_footer(path: Path) -> bytes:
    """A Parquet file ends in its footer, the footer's length (4 bytes) and `PAR1`."""
    with path.open("rb") as file:
        end = file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, end - length))
        return file.read(length)


def _json_at(data: bytes) -> bytes:
    """The JSON object that some bytes begin with; facts are ASCII."""
    text = data.decode("ascii", "replace")
    return text[: json.JSONDecoder().raw_decode(text)[1]].encode()


def _facts_in(footer: pq.FileMetaData) -> PartFacts | None:
    value = (footer.metadata or {}).get(FACTS, b"")
    digest, _, text = value.partition(b" ")
    with suppress(*UNREADABLE):
        return _checked_facts(digest, text)
    return None


def _checked_facts(digest: bytes, text: bytes) -> PartFacts | None:
    """The facts, if their digest fits."""
    return msgspec.json.decode(text, type=PartFacts) if digest.decode() == _digest(text) else None


def image_digests(path: Path, rows: int) -> list[str | None]:
    """The digest of each row's image; None for rows without one, and of an earlier version's part.

    Raises:
        ArrowInvalid: the footer has another number of them.
    """
    digests = _stored_digests(pq.read_metadata(path))
    if digests is not None and len(digests) != rows:
        raise pa.ArrowInvalid(f"it has {len(digests)} digests of images for {rows} rows")
    return [None] * rows if digests is None else digests


def images_at(path: Path, positions: Sequence[int]) -> list[bytes | None]:
    """The encoded images of some rows, each checked by its digest.

    Raises:
        ArrowInvalid: an image is not what was written.
    """
    found: dict[int, bytes | None] = {}
    with _open(path, page_checksum_verification=True) as file:
        digests, start = _stored_digests(file.metadata), 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if wanted := [position for position in positions if start <= position < stop]:
                images = file.read_row_group(group, ["image"], use_threads=False).column("image")
                for position in wanted:
                    image = images[position - start].as_py()
                    found[position] = image and image["bytes"]
            start = stop
    for position, data in found.items():
        if digests is not None and image_digest(data) != digests[position]:
            raise pa.ArrowInvalid("the bytes of an image do not match its digest")
    return [found[position] for position in positions]


def _stored_digests(footer: pq.FileMetaData) -> list[str | None] | None:
    metadata = footer.metadata or {}
    return msgspec.json.decode(metadata[IMAGES], type=list[str | None]) if IMAGES in metadata else None


def is_intact(path: Path) -> bool:
    """Whether every byte of a part is what was written."""
    try:
        data = path.read_bytes()
        with _open(pa.BufferReader(data)) as file:
            ranges = _image_ranges(file.metadata)
            if _digest_of(io.BytesIO(data), ranges) != path.stem[-16:]:
                return False
            return not ranges or _images_match(file)
    except UNREADABLE:
        return False


def _images_match(file: pq.ParquetFile) -> bool:
    images = file.read(columns=["image"], use_threads=False).column("image").to_pylist()
    digests = [image and image_digest(image["bytes"]) for image in images]
    return digests == _stored_digests(file.metadata)


def has_footer(path: Path) -> bool:
    """Whether a part can be opened: a truncated one cannot."""
    try:
        pq.read_metadata(path)
    except UNREADABLE:
        return False
    return True


def _digest_in_name(path: Path) -> str:
    with path.open("rb") as file:
        return _digest_of(file, _image_ranges(pq.read_metadata(path)))


def _image_ranges(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Where the image bytes lie in a part whose footer has their digests: (first byte, byte after)."""
    if IMAGES not in (metadata.metadata or {}):
        return []
    groups: list[Any] = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = (group.column(i) for group in groups for i in range(group.num_columns))
    return [
        (column.data_page_offset, column.data_page_offset + column.total_compressed_size)
        for column in columns
        if column.path_in_schema == "image.bytes"
    ]


def _digest_of(file: BinaryIO, left_out: Sequence[tuple[int, int]]) -> str:
    """Digest of a file's bytes without these ranges."""
    total, position = hashlib.blake2b(digest_size=8), 0
    for first, after in left_out:
        file.seek(position)
        total.update(file.read(first - position))
        position = after
    file.seek(position)
    total.update(file.read())
    return total.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
