"""Pictures with captions in Parquet files of others: `datasets` of the hub, exports, `train scenes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp")
CAPTION_COLUMNS = ("caption", "captions", "text", "prompt")
BATCH_ROWS = 32  # that become Python objects at a time: pictures of a camera have megabytes each
READ_AHEAD = 1 << 22  # bytes of a column that are read at a time


@dataclass(frozen=True, slots=True)
class PictureColumns:
    """Names of the columns of a file that are read."""

    image: str
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParquetPicture:
    """A row: its number in the file, an encoded picture (None: there is none), its captions' cells."""

    row: int
    image: bytes | None
    captions: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class LostRows:
    """Rows that cannot be read, from `row` on."""

    row: int
    number: int
    why: str


def group_rows(file: BinaryIO, where: str) -> list[int]:
    """How many rows each row group has, by the footer.

    Raises:
        BadInput: it is no Parquet file, or its footer is damaged.
    """
    with _parquet(file, where) as parquet:
        footer = parquet.metadata
        return [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]


def find_columns(
    file: BinaryIO, where: str, image: str = "", captions: Sequence[str] = ()
) -> PictureColumns:
    """The columns of pictures and captions: those asked for, else the first of the usual names.

    Raises:
        BadInput: there are none, or they hold something else.
    """
    with _parquet(file, where) as parquet:
        return _columns(parquet.schema_arrow, where, image, captions)


def _columns(schema: pa.Schema, where: str, image: str, captions: Sequence[str]) -> PictureColumns:
    if "tokens" in schema.names and not image:
        raise BadInput(f"{where} holds tokens, not pictures: train on it as it is")
    found = image or _first(schema, IMAGE_COLUMNS, where, "picture", "--image-column")
    texts = tuple(captions) or (_first(schema, CAPTION_COLUMNS, where, "caption", "--caption-column"),)
    for name in (found, *texts):
        if schema.names.count(name) != 1:
            raise BadInput(f"{where} has no column {name!r}; its columns are {', '.join(schema.names)}")
    _check_type(schema, found, _holds_image, where, "encoded pictures (bytes)")
    for name in texts:
        _check_type(schema, name, _holds_text, where, "texts")
    return PictureColumns(found, texts)


def read_pictures(
    file: BinaryIO, where: str, groups: range, image: str = "", captions: Sequence[str] = ()
) -> Iterator[ParquetPicture | LostRows]:
    """Rows of some row groups, in order; what is damaged comes as `LostRows`.

    Raises:
        BadInput: the footer is damaged; or see `find_columns`.
    """
    with _parquet(file, where) as parquet:
        columns = _columns(parquet.schema_arrow, where, image, captions)
        sizes = [parquet.metadata.row_group(number).num_rows for number in range(groups.stop)]
        for group in groups:
            yield from _read_group(parquet, columns, group, sum(sizes[:group]), sizes[group])


def _read_group(
    parquet: pq.ParquetFile, columns: PictureColumns, group: int, first: int, rows: int
) -> Iterator[ParquetPicture | LostRows]:
    done, names = 0, list(dict.fromkeys((columns.image, *columns.captions)))
    try:
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=names, use_threads=False):
            images = batch[columns.image].to_pylist()
            texts = zip(*(batch[name].to_pylist() for name in columns.captions), strict=True)
            for image, captions in zip(images, texts, strict=True):
                yield ParquetPicture(first + done, _bytes_of(image), captions)
                done += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's, not Arrow's of damaged pages
            raise
        yield LostRows(first + done, rows - done, str(error).partition("\n")[0])


def _bytes_of(value: Any) -> bytes | None:
    return value.get("bytes") if isinstance(value, dict) else value


def _first(schema: pa.Schema, names: Sequence[str], where: str, what: str, flag: str) -> str:
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        listed = ", ".join(schema.names) or "none"
        raise BadInput(
            f"{where}: no column of a {what} ({', '.join(names)}); its columns are {listed}: name it "
            f"with {flag}"
        )
    return found


def _check_type(schema: pa.Schema, name: str, holds: Any, where: str, what: str) -> None:
    kind = schema.field(name).type
    if not holds(kind):
        raise BadInput(f"{where}: the column {name!r} holds {kind}, not {what}")


def _holds_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_image(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


@contextmanager
def _parquet(file: BinaryIO, where: str) -> Iterator[pq.ParquetFile]:
    try:
        opened = pq.ParquetFile(file, buffer_size=READ_AHEAD)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise BadInput(f"{where} is not a readable Parquet file: {first}") from error
    with opened:
        yield opened
