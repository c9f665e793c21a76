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
    """Write rows to `folder/shard-*.parquet` and return the number of rows.

    They are written to `<folder>.part`, which is renamed at the end, so an interrupted command leaves
    no incomplete folder and can be run again.

    Raises:
        BadInput: the folder is not empty.
    """
    folder = folder.resolve()  # a symbolic link cannot be replaced by a rename
    temporary = _make_temporary(folder)
    total = _write_all(rows, temporary, schema.with_metadata(metadata or {}), rows_per_shard)
    temporary.rename(folder)
    return total


def _make_temporary(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} already has shards or other files: name an empty folder with --out")
    temporary = folder.with_name(f"{folder.name}.part")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    return temporary


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
    """The shards of several folders, by name within each.

    Raises:
        BadInput: a folder has no shards, or a shard lacks a column.
    """
    for folder in folders:
        paths = _shard_paths(folder)
        if not paths:
            raise BadInput(f"no shard-*.parquet in {folder}: make them with `sar-eval train`")
        for path in paths:
            missing = set(schema.names) - set(pq.read_schema(path).names)
            if missing:
                raise BadInput(f"{path} has no column {', '.join(sorted(missing))}")
            yield pq.read_table(path, columns=schema.names)


def _shard_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.parquet"))


def read_images(folders: Sequence[Path]) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """(RGB uint8 [H, W, 3], caption) of every row.

    Raises:
        BadInput: see `read_shards`; or an image cannot be read.
    """
    for table in read_shards(folders, IMAGE_SCHEMA):
        for row in table.to_pylist():
            try:
                with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                    yield np.asarray(image.convert("RGB")), row["caption"]
            except UnidentifiedImageError as error:
                raise BadInput(f"unreadable image with caption {row['caption']!r}: {error}") from error


def read_metadata(folders: Sequence[Path]) -> dict[str, str]:
    """The metadata of all shards.

    Raises:
        BadInput: the shards' metadata differ, for example if they come from different tokenizers.
    """
    shared: dict[str, str] | None = None
    for path in (path for folder in folders for path in _shard_paths(folder)):
        raw = pq.read_schema(path).metadata or {}
        metadata = {key.decode(): value.decode() for key, value in raw.items()}
        if shared is not None and metadata != shared:
            raise BadInput(f"{path} was made with {metadata}, the shards before it with {shared}")
        shared = metadata
    return shared or {}
