"""Parquet shards of training data: captioned images and captioned visual tokens."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sar_eval.errors import BadInput

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE_SCHEMA = pa.schema([("image", IMAGE), ("caption", pa.string())])
TOKEN_SCHEMA = pa.schema([("tokens", pa.list_(pa.int32())), ("caption", pa.string())])


def write_shards(
    rows: Iterable[dict[str, Any]],
    folder: Path,
    schema: pa.Schema,
    rows_per_shard: int = 20_000,
    metadata: dict[str, str] | None = None,
) -> int:
    """Write rows to `folder/shard-*.parquet` and return how many rows there are.

    They are written to `<folder>.part`, which takes the folder's name at the end: an interrupted
    command can be run again, and half of the data is never taken for all of it.

    Raises:
        BadInput: the folder already holds something.
    """
    folder = folder.resolve()  # a link would not take the new name
    part = _empty_part(folder)
    total = _write_all(rows, part, schema.with_metadata(metadata or {}), rows_per_shard)
    part.rename(folder)
    return total


def _empty_part(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} already holds shards or other files: name an empty folder with --out")
    part = folder.with_name(f"{folder.name}.part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    return part


def _write_all(rows: Iterable[dict[str, Any]], folder: Path, schema: pa.Schema, rows_per_shard: int) -> int:
    total, buffer = 0, []
    for row in rows:
        buffer.append(row)
        if len(buffer) == rows_per_shard:
            _write_shard(buffer, folder, total // rows_per_shard, schema)
            total, buffer = total + len(buffer), []
    if buffer:
        _write_shard(buffer, folder, total // rows_per_shard, schema)
    return total + len(buffer)


def _write_shard(rows: list[dict[str, Any]], folder: Path, number: int, schema: pa.Schema) -> None:
    path = folder / f"shard-{number:05d}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=1000)


def read_shards(folders: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The shards of several folders in name order, with their columns checked.

    Raises:
        BadInput: a folder has no shards, or one has other columns.
    """
    for folder in folders:
        paths = sorted(folder.glob("shard-*.parquet"))
        if not paths:
            raise BadInput(f"no shard-*.parquet in {folder}: make them with `sar-eval train`")
        for path in paths:
            missing = set(schema.names) - set(pq.read_schema(path).names)
            if missing:
                raise BadInput(f"{path} has no column {', '.join(sorted(missing))}")
            yield pq.read_table(path, columns=schema.names)


def read_images(folders: Sequence[Path]) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """(RGB uint8 [H, W, 3], caption) of every row."""
    for table in read_shards(folders, IMAGE_SCHEMA):
        for row in table.to_pylist():
            try:
                with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                    yield np.asarray(image.convert("RGB")), row["caption"]
            except UnidentifiedImageError as error:
                raise BadInput(f"unreadable image with caption {row['caption']!r}: {error}") from error


def read_metadata(folders: Sequence[Path]) -> dict[str, str]:
    """The metadata that all shards share.

    Raises:
        BadInput: two shards were written with different metadata (another tokenizer, say).
    """
    found: dict[str, str] | None = None
    for folder in folders:
        for path in sorted(folder.glob("shard-*.parquet")):
            raw = pq.read_schema(path).metadata or {}
            here = {k.decode(): v.decode() for k, v in raw.items()}
            if found is not None and here != found:
                raise BadInput(f"{path} was made with {here}, the shards before it with {found}")
            found = here
    return found or {}
