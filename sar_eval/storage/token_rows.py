"""Rows of captioned visual tokens in memory: what one row group of a token shard holds.

Codes lie one after the other in the narrowest type that has them, captions and keys stay in Arrow: a row
costs its bytes, and becomes Python objects only where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sar_eval.errors import BadInput

NARROW = 1 << 16  # codes that fit into 2 bytes
CODES = (1 << 31) - 1  # more than any tokenizer has: ids are int32


@dataclass(frozen=True, slots=True)
class TokenColumns:
    """Which columns of a shard hold what.

    Attributes:
        caption: text, or a list of texts.
        size: of height and width in tokens; empty where pictures are square.
        key: of what names a row; empty where only its number does.
    """

    tokens: str
    caption: str
    size: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [self.tokens, self.caption, *self.size, *self.key]


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Some rows of shards.

    Attributes:
        flat: codes of all rows [tokens].
        starts: where each row begins in `flat`, and where the last ends [rows + 1].
        heights, widths: in tokens [rows].
    """

    flat: NDArray[np.unsignedinteger[Any]]
    starts: NDArray[np.int64]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    _texts: Any
    _text_starts: NDArray[np.int64]
    _keys: Any

    def __len__(self) -> int:
        return len(self.heights)

    def codes(self, rows: NDArray[np.int64]) -> list[NDArray[np.int32]]:
        """Copies of the codes of some rows, in raster order."""
        lengths = np.diff(self.starts)
        if len(rows) and lengths.min() == lengths.max():  # one copy of all is twice as fast
            table = self.flat[: self.starts[-1]].reshape(len(self), -1)
            return list(table[rows].astype(np.int32))
        begins, ends = self.starts[rows].tolist(), self.starts[rows + 1].tolist()
        return [self.flat[b:e].astype(np.int32) for b, e in zip(begins, ends, strict=True)]

    def captions(self, rows: NDArray[np.int64], chances: NDArray[np.float64]) -> list[str]:
        """One of the captions of each row: the first for a chance of 0, the last for one just below 1."""
        starts, choices = self._text_starts[rows], self._text_starts[rows + 1] - self._text_starts[rows]
        found: list[str] = _taken(self._texts, starts + (chances * choices).astype(np.int64))
        return found

    def all_captions(self, row: int) -> list[str]:
        """Every caption of a row."""
        found: list[str] = _taken(
            self._texts, np.arange(self._text_starts[row], self._text_starts[row + 1])
        )
        return found

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """What names each row for people: its source's key, or shard and number."""
        found: list[str] = _taken(self._keys, rows)
        return found


def token_rows(
    table: pa.Table, columns: TokenColumns, known: int | None, where: str, first: int = 0
) -> TokenRows:
    """The rows of a table, looked at.

    Args:
        table: has `columns`.
        columns: what is where.
        known: how many codes there are.
        where: name of the shard for messages.
        first: number of the first row in the shard.

    Raises:
        BadInput: a value is missing, a row is no rectangle of tokens, or a code is not one of the `known`.
    """
    flat, starts = _codes(table[columns.tokens], known, f"{where}, from row {first}")
    heights, widths = _sizes(table, columns, np.diff(starts), where, first)
    texts, text_starts = _texts(table[columns.caption], columns.caption, f"{where}, from row {first}")
    keys = _keys(table, columns, where, first)
    return TokenRows(flat, starts, heights, widths, texts, text_starts, keys)


def gathered(parts: Iterable[TokenRows], buffer: NDArray[np.unsignedinteger[Any]]) -> TokenRows:
    """All rows of some parts, with their codes copied into a buffer: parts are not held.

    Memory that is used again is faster than new one, which the system has to clear first.
    """
    flats, texts, keys, sizes = [np.zeros(1, np.int64)], [], [], []
    text_starts = [np.zeros(1, np.int64)]
    for part in parts:
        begin = flats[-1][-1]
        buffer[begin : begin + len(part.flat)] = part.flat
        flats.append(part.starts[1:] + begin)
        text_starts.append(part._text_starts[1:] + text_starts[-1][-1])
        texts.append(part._texts)
        keys.append(part._keys)
        sizes.append((part.heights, part.widths))
    heights, widths = (np.concatenate(side) for side in zip(*sizes, strict=True))
    starts, ends = np.concatenate(flats), np.concatenate(text_starts)
    return TokenRows(buffer, starts, heights, widths, pa.concat_arrays(texts), ends, pa.concat_arrays(keys))


def _codes(
    column: pa.ChunkedArray, known: int | None, where: str
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64]]:
    array = _plain(column, "tokens", where)
    values, starts = _flattened(array, "tokens", where)
    codes = as_numpy(values)
    low, high = (int(codes.min()), int(codes.max())) if len(codes) else (0, 0)
    limit = CODES if known is None else min(known, CODES)
    if low < 0 or high >= limit:
        raise BadInput(f"{where}: there is the code {low if low < 0 else high}; codes are 0 to {limit - 1}")
    return codes.astype(narrowest(high + 1), copy=False), starts


def _sizes(
    table: pa.Table, columns: TokenColumns, lengths: NDArray[np.int64], where: str, first: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    if columns.size:
        heights, widths = sizes_in(table, columns, where)
    else:
        heights = widths = np.sqrt(lengths).round().astype(np.int32)
    wrong = (heights < 1) | (heights.astype(np.int64) * widths != lengths)
    if wrong.any():
        row = int(wrong.argmax())
        size = f"{heights[row]} x {widths[row]} picture" if columns.size else "square picture"
        raise BadInput(f"{where}, row {first + row}: rows of {lengths[row]} tokens: no {size} has so many")
    return heights, widths


def sizes_in(
    table: pa.Table, columns: TokenColumns, where: str
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Heights and widths [rows] in tokens, as a table has them.

    Raises:
        BadInput: one is missing, or no whole number.
    """
    heights, widths = (_numbers(table[name], name, where) for name in columns.size)
    return heights, widths


def _numbers(column: pa.ChunkedArray, name: str, where: str) -> NDArray[np.int32]:
    if not pa.types.is_integer(column.type):
        raise BadInput(f"{where}: {name} is {column.type}, not a whole number")
    _no_nulls(column, name, where)
    return as_numpy(column.combine_chunks().cast(pa.int32()))


def _texts(column: pa.ChunkedArray, name: str, where: str) -> tuple[Any, NDArray[np.int64]]:
    """All captions, and where those of each row begin."""
    array = _plain(column, name, where)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        texts, starts = _flattened(array, name, where)
    else:
        texts, starts = array, np.arange(len(array) + 1)
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise BadInput(f"{where}: {name} cannot be read as a caption: it is {array.type}, not text")
    texts.validate(full=True)  # text that is no UTF-8
    texts = texts.cast(pa.large_string())
    if without := int((np.diff(starts) == 0).sum()):
        raise BadInput(f"{where}: {without} rows without {name}")
    return texts, starts


def _keys(table: pa.Table, columns: TokenColumns, where: str, first: int) -> pa.Array:
    if columns.key:
        parts = [_plain(table[name], name, where).cast(pa.large_string()) for name in columns.key]
        return (
            parts[0]
            if len(parts) == 1
            else pc.binary_join_element_wise(*parts, pa.scalar("/", parts[0].type))
        )
    return pa.array([f"{where}:{row}" for row in range(first, first + len(table))], pa.large_string())


def _taken(array: pa.Array, rows: NDArray[np.int64]) -> list[Any]:
    """Some values as Python's; an index that `pa.array` made would import pandas."""
    buffer = pa.py_buffer(np.ascontiguousarray(rows))
    return list(array.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, buffer])).to_pylist())


def _plain(column: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    _no_nulls(column, name, where)
    return column.combine_chunks()


def _flattened(array: pa.Array, name: str, where: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """Values of the lists of an array, and where each list begins, and the last ends."""
    lengths = as_numpy(pc.list_value_length(array))
    values = array.flatten()
    _no_nulls(values, name, where)
    return values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def as_numpy(array: pa.Array) -> NDArray[Any]:
    """A view of whole numbers, of which none is missing; Arrow's own `to_numpy` imports pandas."""
    if not len(array):
        return np.empty(0, str(array.type))
    return np.frombuffer(array.buffers()[1], str(array.type))[array.offset : array.offset + len(array)]


def _no_nulls(array: pa.Array | pa.ChunkedArray, name: str, where: str) -> None:
    if array.null_count:
        raise BadInput(f"{where}: {array.null_count} rows without {name}")


def narrowest(codes: int) -> type[np.unsignedinteger[Any]]:
    """The type that has so many codes in the fewest bytes."""
    return np.uint16 if codes <= NARROW else np.uint32


def square(tokens: int, where: str) -> tuple[int, int]:
    """Height and width of a square picture.

    Raises:
        BadInput: there is none of so many tokens.
    """
    side = math.isqrt(tokens)
    if tokens < 1 or side * side != tokens:
        raise BadInput(f"{where}: rows of {tokens} tokens: no square picture has so many")
    return side, side
