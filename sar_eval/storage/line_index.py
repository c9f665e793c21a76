"""Where the lines of a text file begin, so that any range is read without the lines before it.

An index has one entry for every `STRIDE` bytes: the number of the first line that begins there, and its
offset. Lines that are blank are no rows and are not counted. Lines end at newlines alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

STRIDE = 1 << 18  # bytes between entries: what is read beside the rows that are asked for
MAX_LINE = 1 << 24  # bytes; a longer one is no prompt
BOM = b"\xef\xbb\xbf"
# First bytes of the characters that `str.strip` takes away: ASCII's, and in UTF-8 U+0085 and U+00A0,
# U+1680, U+2000 to U+205F, U+3000.
_MAYBE_BLANK = np.zeros(256, dtype=bool)
_MAYBE_BLANK[[*range(33), 0xC2, 0xE1, 0xE2, 0xE3]] = True


@dataclass(frozen=True, slots=True)
class LineIndex:
    """Entries of an index in order, and how many rows there are."""

    rows: int
    numbers: Sequence[int]
    offsets: Sequence[int]

    def before(self, row: int) -> tuple[int, int]:
        """The last entry that is not after a row: its line's number and offset."""
        place = bisect_right(self.numbers, row) - 1
        return self.numbers[place], self.offsets[place]


@dataclass(frozen=True, slots=True)
class ChunkLines:
    """The lines that begin in one chunk of a file: how many, and some of them by number in the chunk."""

    rows: int
    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]


def lines_of_chunk(data: bytes, start: int, file: BinaryIO) -> ChunkLines:
    """The lines that begin in a chunk, the first line of the file and those after its newlines.

    Args:
        data: of the chunk.
        start: its offset in the file.
        file: for the end of its last line; its position is moved.
    """
    codes = np.frombuffer(data, dtype=np.uint8)
    begins = np.flatnonzero(codes == ord("\n")) + 1
    if start == 0:
        begins = np.concatenate(([len(BOM) if data.startswith(BOM) else 0], begins))
    if len(begins):
        begins = begins[_filled(data, codes, begins, start, file)]
    wanted = np.arange(0, len(data) + STRIDE, STRIDE)
    numbers = np.unique(np.searchsorted(begins, wanted))
    numbers = numbers[numbers < len(begins)]
    return ChunkLines(len(begins), numbers.astype(np.int64), begins[numbers].astype(np.int64) + start)


def _filled(
    data: bytes, codes: NDArray[np.uint8], begins: NDArray[np.int64], start: int, file: BinaryIO
) -> NDArray[np.bool_]:
    """Which lines are not blank. Only those that begin like a blank one are looked at, but for the last."""
    maybe = np.ones(len(begins), dtype=bool)
    maybe[:-1] = _MAYBE_BLANK[codes[begins[:-1]]]
    filled = ~maybe
    for number in np.flatnonzero(maybe).tolist():
        begin = int(begins[number])
        last = number == len(begins) - 1
        line = _read_line(file, start + begin) if last else data[begin : int(begins[number + 1])]
        filled[number] = not is_blank(line)
    return filled


def _read_line(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.readline(MAX_LINE)


def is_blank(line: bytes) -> bool:
    """Whether there is nothing in the first `MAX_LINE` bytes of a line, as `str.strip` sees it."""
    line = line[:MAX_LINE]
    return not line.strip() or not line.decode(errors="replace").strip()


def join_chunks(chunks: Sequence[ChunkLines]) -> LineIndex:
    """The index of a file from its chunks in order."""
    starts = np.cumsum([0, *(chunk.rows for chunk in chunks)])
    numbers = [chunk.numbers + start for chunk, start in zip(chunks, starts[:-1], strict=True)]
    offsets = [chunk.offsets for chunk in chunks]
    joined = (np.concatenate(parts).tolist() if parts else [] for parts in (numbers, offsets))
    return LineIndex(int(starts[-1]), *joined)


def read_lines(file: BinaryIO, index: LineIndex, start: int, stop: int) -> Iterator[bytes]:
    """The rows of a range as bytes with their newlines; of a line over `MAX_LINE` only the beginning."""
    stop = min(stop, index.rows)
    if start >= stop:
        return
    row, offset = index.before(start)
    file.seek(offset)
    while row < stop:
        line = file.readline(MAX_LINE + 1)
        ended = line.endswith(b"\n")
        if not line:
            return
        if not is_blank(line):
            if row >= start:
                yield line
            row += 1
        while not ended and (rest := file.readline(MAX_LINE)):
            ended = rest.endswith(b"\n")
