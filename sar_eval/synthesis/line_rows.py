"""Rows of JSON Lines and of plain lines; a line that cannot be read is a row that says why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from sar_eval.documents import parse_json, shorten
from sar_eval.errors import BadInput
from sar_eval.storage.line_index import MAX_LINE, LineIndex, read_lines
from sar_eval.storage.row_groups import UnreadableRow
from sar_eval.suites.sources import Row

LINE = "row"  # in messages, in place of file and line, which must not decide what a set says of a row


class LineRows:
    """Rows of a file of JSON Lines, or of plain lines."""

    def __init__(self, data: BinaryIO, lines: LineIndex, suffix: str) -> None:
        """Take the opened file, which must be the one that was indexed, and the suffix of its name."""
        self._data, self._lines = data, lines
        self._row = _json_row if suffix == ".jsonl" else _text_row

    def __len__(self) -> int:
        return self._lines.rows

    def rows(self, start: int, stop: int) -> Iterator[Row | UnreadableRow]:
        """Rows of a range."""
        for line in read_lines(self._data, self._lines, start, stop):
            try:
                yield self._row(_decoded(line))
            except BadInput as error:
                yield UnreadableRow(str(error).removeprefix(f"{LINE}: "))


def _decoded(line: bytes) -> str:
    if len(line) > MAX_LINE:
        raise BadInput(f"a line of over {MAX_LINE:,} bytes")
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 ({error.reason} at byte {error.start})") from error


def _json_row(text: str) -> Row:
    value = parse_json(text, LINE)
    row = {"text": value} if isinstance(value, str) else value
    if not isinstance(row, dict):
        raise BadInput(f"each line must be a JSON object or text, not {shorten(value)}")
    return row


def _text_row(text: str) -> Row:
    if "\r" in text:
        raise BadInput("carriage returns inside a line: convert the file with `mac2unix`")
    return {"text": text}
