"""Rows of captioned visual tokens in memory: what one row group of a token shard holds.

Codes lie one after the other in the narrowest type that has them, captions and keys stay in Arrow: a row
costs its bytes, and becomes Python objects only where it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sar_eval.errors import BadInput

NARROW = 1 << 16  # codes below fit into 2 bytes


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
    """Some rows of one shard.

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
    _keys: tuple[Any, ...]
    _where: str
    _first: int

    def __len__(self) -> int:
        return len(self.heights)

    def codes(self, row: int) -> NDArray[np.int32]:
        """A copy of the codes of a row, in raster order."""
        return self.flat[self.starts[row] : self.starts[row + 1]].astype(np.int32)

    def captions(self, row: int) -> int:
        """How many captions a row has; at least one."""
        return int(self._text_starts[row + 1] - self._text_starts[row])

    def caption(self, row: int, number: int) -> str:
        """One of the captions of a row."""
        return str(self._texts[int(self._text_starts[row]) + number].as_py())

    def key(self, row: int) -> str:
        """What names a row for people: its source's key, or shard and number."""
        if not self._keys:
            return f"{self._where}:{self._first + row}"
        return "/".join(str(column[row].as_py()) for column in self._keys)


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
    keys = tuple(table[name].combine_chunks() for name in columns.key)
    return TokenRows(flat, starts, heights, widths, texts, text_starts, keys, where, first)


def _codes(
    column: pa.ChunkedArray, known: int | None, where: str
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64]]:
    array = _plain(column, "tokens", where)
    values, starts = _flattened(array, "tokens", where)
    codes = values.to_numpy(zero_copy_only=False)
    low, high = (int(codes.min()), int(codes.max())) if len(codes) else (0, 0)
    limit = 2**31 - 1 if known is None else known
    if low < 0 or high >= limit:
        raise BadInput(f"{where}: there is the code {low if low < 0 else high}; codes are 0 to {limit - 1}")
    narrow = np.uint16 if high < NARROW else np.uint32
    return codes.astype(narrow, copy=False), starts


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
    return np.asarray(column.combine_chunks().cast(pa.int32()).to_numpy(zero_copy_only=False), np.int32)


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
    if without := int((np.diff(starts) == 0).sum()):
        raise BadInput(f"{where}: {without} rows without {name}")
    return texts, starts


def _plain(column: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    _no_nulls(column, name, where)
    return column.combine_chunks()


def _flattened(array: pa.Array, name: str, where: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """Values of the lists of an array, and where each list begins, and the last ends."""
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    values = array.flatten()
    _no_nulls(values, name, where)
    return values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _no_nulls(array: pa.Array | pa.ChunkedArray, name: str, where: str) -> None:
    if array.null_count:
        raise BadInput(f"{where}: {array.null_count} rows without {name}")


def square(tokens: int, where: str) -> tuple[int, int]:
    """Height and width of a square picture.

    Raises:
        BadInput: there is none of so many tokens.
    """
    side = math.isqrt(tokens)
    if tokens < 1 or side * side != tokens:
        raise BadInput(f"{where}: rows of {tokens} tokens: no square picture has so many")
    return side, side
