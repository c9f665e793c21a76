"""Parquet shards of training data: captioned images and captioned visual tokens.

A synthesised set is read like a folder of shards: there the caption of a row is the text that the
checkpoint was asked, with the protocol's prefix, as `train select` has it.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.storage.set_reader import is_set, open_set

Place = Path | str  # a folder of shards, or a set's folder or URI
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE_SCHEMA = pa.schema([("image", IMAGE), ("caption", pa.string())])
CODEBOOK = ("codebook_size", "encoder")  # what metadata says of tokens
FORMATS = ("PNG", "JPEG", "WEBP")  # of a captioned image
TOKEN_SCHEMA = pa.schema([("tokens", pa.list_(pa.int32())), ("caption", pa.string())])
# Of `train select`: where a row is from, which training does not read.
SELECTED_SCHEMA = pa.schema([*TOKEN_SCHEMA, ("score", pa.float64()), ("draw", pa.string())])
# The same of pictures that are no squares, with their height and width in tokens.
SIZED_SCHEMA = pa.schema([*SELECTED_SCHEMA, ("height", pa.uint16()), ("width", pa.uint16())])


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
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {temporary}: {error.strerror}") from error
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


def read_shards(places: Sequence[Place], schema: pa.Schema) -> Iterator[pa.Table]:
    """The shards of several folders, by name within each, and the objects of several sets.

    Raises:
        BadInput: a folder has no shards; a shard is no Parquet file, is damaged, or has not the schema's
            columns; or a value is missing.
    """
    for place in places:
        if is_set(place):
            yield from _read_set(place, schema)
            continue
        paths = _shard_paths(Path(place))
        if not paths:
            raise BadInput(f"no shard-*.parquet and no set in {place}: make them with `sar-eval train`")
        for path in paths:
            with _told_with(path):
                yield _read_shard(path, schema)


def _read_set(place: Place, schema: pa.Schema) -> Iterator[pa.Table]:
    named = ["text" if name == "caption" else name for name in schema.names]
    empty = True
    for where, table in open_set(place).tables(named):
        with _told_with(where):
            yield _checked(table.rename_columns(schema.names), schema, where)
        empty = False
    if empty:
        raise BadInput(f"the set {place} holds no picture yet: `sar-eval synth status {place}`")


def _read_shard(path: Path, schema: pa.Schema) -> pa.Table:
    missing = set(schema.names) - set(_read_schema(path).names)
    if missing:
        raise BadInput(f"{path} has no column {', '.join(sorted(missing))}")
    return _checked(pq.read_table(path, columns=schema.names).select(schema.names), schema, path)


def _checked(table: pa.Table, schema: pa.Schema, where: Place) -> pa.Table:
    """The table as the schema has it, if no value is missing."""
    table = table.replace_schema_metadata(None).cast(schema)
    table.validate(full=True)  # text that is no UTF-8
    for name in schema.names:
        values = table[name]
        while pa.types.is_list(values.type) and not values.null_count:
            values = pc.list_flatten(values)
        if values.null_count:
            raise BadInput(f"{where}: {values.null_count} rows without {name}")
    return table


def _read_schema(path: Path) -> pa.Schema:
    if not path.is_file():  # a folder, a pipe or a device: reading it may never end
        raise BadInput(f"{path} is no regular file")
    return pq.read_schema(path)


@contextmanager
def _told_with(path: Place) -> Iterator[None]:
    """What Arrow or the system says of a shard, with its name."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = str(error).partition("\n")[0]
        raise BadInput(f"{path} cannot be read as a shard of training data: {first}") from error


def _shard_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.parquet"))


def read_images(places: Sequence[Place]) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """(RGB uint8 [H, W, 3], caption) of every row.

    Raises:
        BadInput: see `read_shards`; or an image cannot be read.
    """
    for table in read_shards(places, IMAGE_SCHEMA):
        for row in table.to_pylist():
            yield _pixels(row["image"]["bytes"], row["caption"]), row["caption"]


def _pixels(data: bytes | None, caption: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data or b""), formats=FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"unreadable image with caption {caption!r}: {error}") from error
