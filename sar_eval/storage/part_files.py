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
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.storage.files import publish, storage_errors
from sar_eval.storage.schemas import PartFacts, Row, image_digest

ROWS_PER_GROUP = 16  # of a part with images: a Parquet row group is the minimum that is read for one image
PART_NAME = re.compile(r"part-(\d{6,18})-([0-9a-f]{16})\.parquet")
FACTS, IMAGES = b"sar_eval.part", b"sar_eval.images"  # keys of the footer's metadata
# In Thrift's compact protocol a value follows its key after a field header and a length.
FACTS_START = re.compile(re.escape(FACTS) + rb"\x18[\x80-\xff]*[\x00-\x7f]([0-9a-f]{16}) ")
UNIQUE = ("key", "image.bytes", "image.path")  # columns without repeated values
OPTIONAL = ("provenance", "image_digest")  # columns that earlier versions did not write
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
    """Images are compressed already: doing it again costs time and gains nothing."""
    leaves, images = _leaves(schema), "image" in schema.names
    size = ROWS_PER_GROUP if images else max(1, len(rows))
    text = json.dumps(asdict(facts))  # in ASCII
    with (
        ThreadPoolExecutor(1) as hashing,  # hashing and writing both release the GIL
        pa.OSFile(str(path), "wb") as sink,
        pq.ParquetWriter(
            sink,
            schema,
            compression={name: "none" if name == "image.bytes" else "zstd" for name in leaves},
            use_dictionary=[name for name in leaves if name not in UNIQUE],
            write_statistics=False,
            write_page_checksum=not images,
        ) as writer,
    ):
        digests = hashing.submit(_image_digests, rows) if images else None
        for start in range(0, len(rows), size):
            writer.write_table(pa.Table.from_pylist(list(rows[start : start + size]), schema=schema))
        metadata = {FACTS: f"{_digest(text.encode())} {text}".encode()}
        if digests is not None:
            metadata[IMAGES] = msgspec.json.encode(digests.result())
        writer.add_key_value_metadata(metadata)


def _image_digests(rows: Sequence[Row]) -> list[str | None]:
    return [image_digest(row["image"]["bytes"]) if row["image"] else None for row in rows]


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


def read_columns(path: Path, names: list[str], schema: pa.Schema) -> pa.Table:
    """Columns of a part, checked by its digest; columns that an earlier version did not write are null.

    Raises:
        ArrowInvalid: a byte of what was read is not what was written, or a column is missing.
    """
    with path.open("rb") as raw:
        # A small part is read once, as a whole; of a large one what is needed, by seeking.
        data = io.BytesIO(raw.read()) if os.fstat(raw.fileno()).st_size <= SMALL else raw
        with pq.ParquetFile(data, page_checksum_verification=data is raw) as file:
            ranges, images = _image_ranges(file.metadata), "image" in names
            _check_text(path, data, ranges, whole=images or data is not raw)
            if images and ranges and not _images_match(file):
                raise pa.ArrowInvalid("the bytes of an image do not match its digest")
            stored = set(file.schema_arrow.names)
            table = file.read(columns=[name for name in names if name in stored], use_threads=False)
    return _with_absent(table, names, schema)


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
            text = _json_at(footer[start.end() :])
            if start[1].decode() == _digest(text):
                return msgspec.json.decode(text, type=PartFacts)
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


def image_digests(path: Path, rows: int) -> list[str | None]:
    """The digest of each row's image; None for rows without one, and of an earlier version's part.

    Raises:
        ArrowInvalid: the footer has another number of them.
    """
    digests = _stored_digests(pq.read_metadata(path))
    if digests is not None and len(digests) != rows:
        raise pa.ArrowInvalid(f"it has {len(digests)} digests of images for {rows} rows")
    return [None] * rows if digests is None else digests


def _stored_digests(footer: pq.FileMetaData) -> list[str | None] | None:
    metadata = footer.metadata or {}
    return msgspec.json.decode(metadata[IMAGES], type=list[str | None]) if IMAGES in metadata else None


def is_intact(path: Path) -> bool:
    """Whether every byte of a part is what was written."""
    try:
        data = path.read_bytes()
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            ranges = _image_ranges(file.metadata)
            if _digest_of(io.BytesIO(data), ranges) != path.stem[-16:]:
                return False
            return not ranges or _images_match(file)
    except UNREADABLE:
        return False


def _images_match(file: pq.ParquetFile) -> bool:
    images = file.read(columns=["image"], use_threads=False).column("image").to_pylist()
    return _image_digests([{"image": image} for image in images]) == _stored_digests(file.metadata)


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
