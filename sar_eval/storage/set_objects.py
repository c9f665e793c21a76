"""Objects of a synthesised set: kept pictures as Parquet (or a tar), and the manifest of all draws.

The bytes are a function of rows and metadata alone: no times, no hosts, no order of a dictionary. They
may change with the version of pyarrow, which a Parquet file names in `created_by`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput
from sar_eval.storage.schemas import IMAGE, image_suffix
from sar_eval.storage.set_rows import FATES, DataRow, ManifestRow, Value
from sar_eval.storage.webdataset_tar import read_tar, token_type, write_tar
from sar_eval.types import Json

LAYOUTS = {"parquet": ".parquet", "webdataset": ".tar"}
FIXED = ("image", "tokens", "caption", "id", "row", "index", "seed", "text")
GROUP_ROWS = {True: 100, False: 5000}  # rows of a row group, with and without images: some 10 to 100 MB
BATCH_ROWS = 256  # that become Python objects at a time
# Codes are all but random, so that only the upper bytes, which are 0, can be saved: splitting the bytes
# stores 64,000 codes in 2.00 bytes each, dictionaries in 2.04 to 2.39, zstd alone in 2.49.
_TOKENS = "tokens.list.element"
_MANIFEST = [
    *(("row", pa.int64()), ("index", pa.int32()), ("id", pa.string()), ("seed", pa.int64())),
    *(("fate", pa.string()), ("why", pa.string()), ("pixels", pa.binary()), ("phash", pa.uint64())),
    *(("position", pa.int32()), ("embedding", pa.binary())),
]
_OWN = [(name, kind) for name, kind in _MANIFEST if name not in ("why", "pixels")]  # stored as they are
_VALUE = (("score", pa.float64()), ("passed", pa.bool_()), ("error", pa.string()))


def data_object(
    rows: Sequence[DataRow],
    layout: str,
    metadata: Mapping[str, str],
    measures: Sequence[str] | None = None,
) -> tuple[bytes, str]:
    """Kept pictures as an object, and its suffix.

    Args:
        rows: by prompt row and index, ascending; a `ManifestRow.position` counts them.
        layout: "parquet" or "webdataset".
        metadata: kept in the object. `codebook_size` decides how wide codes are stored, so it should be
            there in a set with tokens: all objects of a set need one schema.
        measures: that have a column each, even if no row has a value; by default those that have one.

    Raises:
        ValueError: the rows are not in order, or there is no such layout.
    """
    keys = [(row.row, row.index) for row in rows]
    if any(first >= second for first, second in pairwise(keys)):
        raise ValueError("rows of a data object must be in the order of row and index")
    names = sorted({name for row in rows for name in row.scores}) if measures is None else list(measures)
    if layout == "webdataset":
        return write_tar(rows, metadata, names), LAYOUTS[layout]
    if layout != "parquet":
        raise ValueError(f"layout {layout!r}: {', '.join(LAYOUTS)}")
    return _parquet_data(rows, metadata, names), LAYOUTS[layout]


def _parquet_data(rows: Sequence[DataRow], metadata: Mapping[str, str], measures: Sequence[str]) -> bytes:
    columns: dict[str, pa.Array] = {}
    if has_images := any(row.image is not None for row in rows):
        columns["image"] = pa.array([_image(row) for row in rows], IMAGE)
    if any(row.tokens is not None for row in rows):
        columns["tokens"] = _codes(rows, metadata)
    columns["caption"] = pa.array([row.caption for row in rows], pa.string())
    columns["id"] = pa.array([row.id for row in rows], pa.string())
    columns["row"] = pa.array([row.row for row in rows], pa.int64())
    columns["index"] = pa.array([row.index for row in rows], pa.int32())
    columns["seed"] = pa.array([row.seed for row in rows], pa.int64())
    columns["text"] = pa.array([row.text for row in rows], pa.string())
    for name in measures:
        columns[score_column(name)] = pa.array([row.scores.get(name) for row in rows], pa.float64())
    width = columns["tokens"].type.value_type if "tokens" in columns else None
    features = set_features(measures, image=has_images, tokens=width and str(width))
    known = {
        **metadata,
        "measures": json.dumps(list(measures)),
        "huggingface": json.dumps({"info": {"features": features}}),
    }
    return _parquet_bytes(columns, known, GROUP_ROWS[has_images])


def score_column(measure: str) -> str:
    """Name of a measure's column in a data object: its own, unless another column has that."""
    return f"{measure}_score" if measure in FIXED else measure


def set_features(measures: Sequence[str], *, image: bool, tokens: str | None) -> dict[str, Json]:
    """Columns as `datasets` describes them in a file's schema; `Sequence` is known to all its versions.

    Args:
        measures: that have a column.
        image: whether there are pictures.
        tokens: type of the codes; None without.
    """
    found: dict[str, Json] = {"image": {"_type": "Image"}} if image else {}
    if tokens:
        found["tokens"] = {"feature": {"dtype": tokens, "_type": "Value"}, "_type": "Sequence"}
    types = {"caption": "string", "id": "string", "row": "int64", "index": "int32", "seed": "int64"}
    types |= {"text": "string"} | {score_column(name): "float64" for name in measures}
    return found | {name: {"dtype": dtype, "_type": "Value"} for name, dtype in types.items()}


def _image(row: DataRow) -> dict[str, Any] | None:
    if row.image is None:
        return None
    return {"bytes": row.image, "path": f"{row.row:012d}-{row.index:04d}.{image_suffix(row.image)}"}


def _codes(rows: Sequence[DataRow], metadata: Mapping[str, str]) -> pa.Array:
    """Codes of all rows as lists; null where a row has none."""
    lengths = [len(row.tokens or ()) for row in rows]
    flat = np.fromiter((code for row in rows for code in row.tokens or ()), np.int64, sum(lengths))
    dtype = token_type(metadata, int(flat.max(initial=0)))
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    missing = pa.array([row.tokens is None for row in rows], pa.bool_())
    return pa.ListArray.from_arrays(ends, pa.array(flat.astype(dtype)), mask=missing)


def _parquet_bytes(
    columns: Mapping[str, pa.Array], metadata: Mapping[str, str], group_rows: int, level: int = 3
) -> bytes:
    table = pa.table(dict(columns)).replace_schema_metadata(dict(metadata))
    paths = {"image": ["image.bytes", "image.path"], "tokens": [_TOKENS]}
    leaves = [leaf for name in table.column_names for leaf in paths.get(name, [name])]
    codec = {leaf: "none" if leaf == "image.bytes" else "zstd" for leaf in leaves}
    plain = ("image.bytes", _TOKENS, "seed", "pixels", "phash", "embedding")
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=group_rows,
        version="2.6",
        compression=codec,
        compression_level={leaf: level for leaf, name in codec.items() if name == "zstd"},
        use_dictionary=[leaf for leaf in leaves if leaf not in plain],
        use_byte_stream_split=[_TOKENS] if "tokens" in columns else False,
        write_page_checksum=True,
        write_statistics=[leaf for leaf in leaves if leaf in ("row", "index", "phash")],
    )
    return buffer.getvalue()


def read_data_object(
    data: BinaryIO | bytes, suffix: str, where: str = "a data object"
) -> Iterator[DataRow]:
    """Rows of a data object, a few at a time.

    Args:
        data: seekable.
        suffix: of its name, ".parquet" or ".tar".
        where: name for messages.

    Raises:
        BadInput: it is damaged, or no data object.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    if suffix == ".tar":
        yield from read_tar(file, where)
        return
    with object_errors(where):
        yield from _read_parquet(file, where)


def _read_parquet(file: BinaryIO, where: str) -> Iterator[DataRow]:
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        schema = parquet.schema_arrow
        if missing := set(FIXED[2:]) - set(schema.names):
            raise BadInput(f"{where} has no column {', '.join(sorted(missing))}")
        numbers = [name for name in schema.names if name not in FIXED]
        names = {score_column(name): name for name in measures_of(schema, where)}
        for batch in parquet.iter_batches(BATCH_ROWS, use_threads=False):
            for row in batch.to_pylist():
                scores = {names.get(n, n): row[n] for n in numbers if row[n] is not None}
                yield _data_row(row, scores)


def _data_row(row: Mapping[str, Any], scores: Mapping[str, float]) -> DataRow:
    image, tokens = row.get("image"), row.get("tokens")
    return DataRow(
        row["row"],
        row["index"],
        row["id"],
        row["caption"],
        row["seed"],
        row["text"],
        image["bytes"] if image else None,
        None if tokens is None else tuple(tokens),
        scores,
    )


def measures_of(schema: pa.Schema, where: str) -> list[str]:
    """Measures that an object's metadata names.

    Raises:
        BadInput: they are no list of names.
    """
    raw = (schema.metadata or {}).get(b"measures", b"[]")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise BadInput(f"{where}: its metadata has no list of measures")
    return found


def manifest_object(rows: Sequence[ManifestRow], measures: Sequence[str]) -> bytes:
    """All draws of a block as a Parquet file: a row each.

    Columns are those of `ManifestRow`, and for each measure `NAME.score`, `NAME.passed` and `NAME.error`.

    Args:
        rows: in the order of the block.
        measures: that have columns, asked or not: all objects of a set need one schema.
    """
    columns = {name: pa.array([getattr(row, name) for row in rows], kind) for name, kind in _OWN}
    columns["why"] = pa.array([_storable(row.why) for row in rows], pa.string())
    columns["pixels"] = pa.array([row.pixels or None for row in rows], pa.binary())
    nothing = Value()
    for measure in measures:
        values = [row.values.get(measure, nothing) for row in rows]
        for part, kind in _VALUE[:2]:
            columns[f"{measure}.{part}"] = pa.array([getattr(value, part) for value in values], kind)
        columns[f"{measure}.error"] = pa.array([_storable(value.error) for value in values], pa.string())
    return _parquet_bytes(columns, {"measures": json.dumps(list(measures))}, 1 << 20)


def _storable(text: str | None) -> str | None:
    """An error's text, which is anyone's: half a character, as of a file's name, would lose the block."""
    return text and text.encode("utf-8", "backslashreplace").decode()


def read_manifest(
    data: BinaryIO | bytes, columns: Sequence[str] | None = None, where: str = "a manifest object"
) -> pa.Table:
    """Columns of a manifest object; only those that are asked for are read.

    Args:
        data: seekable.
        columns: by default all.
        where: name for messages.

    Raises:
        BadInput: it is damaged, or lacks a column.
    """
    return read_columns(io.BytesIO(data) if isinstance(data, bytes) else data, columns, where)


def read_columns(
    file: BinaryIO,
    columns: Sequence[str] | None,
    where: str,
    mend: Callable[[Collection[str]], str] = lambda missing: "",
) -> pa.Table:
    """Columns of a Parquet object, in the order in which they are asked for.

    Args:
        file: seekable.
        columns: by default all.
        where: name for messages.
        mend: what to say of missing columns.

    Raises:
        BadInput: it is damaged, or lacks a column.
    """
    with object_errors(where), pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        names = parquet.schema_arrow.names if columns is None else list(columns)
        if missing := sorted(set(names) - set(parquet.schema_arrow.names)):
            raise BadInput(f"{where} has no column {', '.join(missing)}{mend(missing)}")
        return parquet.read(names, use_threads=False).select(names)


def manifest_rows(table: pa.Table, where: str = "a manifest object") -> Iterator[ManifestRow]:
    """Rows of a manifest that was read with all its columns.

    Raises:
        BadInput: it has a fate that there is not.
    """
    measures = measures_of(table.schema, where)
    for row in table.to_pylist():
        if row["fate"] not in FATES:
            raise BadInput(f"{where}: the fate of {row['row']}/{row['index']} is {row['fate']!r}")
        fixed = {name: row[name] for name, _ in _MANIFEST} | {"pixels": row["pixels"] or b""}
        yield ManifestRow(**fixed, values=_values(row, measures))


def _values(row: Mapping[str, Any], measures: Sequence[str]) -> dict[str, Value]:
    found = {m: Value(*(row[f"{m}.{part}"] for part, _ in _VALUE)) for m in measures}
    return {name: value for name, value in found.items() if value != Value()}


@contextmanager
def object_errors(where: str) -> Iterator[None]:
    """What Arrow says of an object, with its name.

    Raises:
        BadInput: in place of Arrow's errors.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        raise BadInput(f"{where} cannot be read, it is damaged or of another kind: {first}") from error
