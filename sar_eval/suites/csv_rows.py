"""Rows of a CSV file, each with the line it begins on."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sar_eval.errors import BadInput

NEWLINE = re.compile(r"\r\n|\r|\n")


def csv_rows(text: str, path: Path, required: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column of every row; empty cells are left out.

    Args:
        text: the file's contents, newlines as they are.
        path: of the file, for messages.
        required: columns that the file must have.

    Raises:
        BadInput: a column is missing, a row has more cells than columns, or quotes are unbalanced.
    """
    # Strict: otherwise an unclosed quote silently swallows the rest of the file.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if missing := [name for name in required if name not in (reader.fieldnames or ())]:
            raise BadInput(f"{path}:1: no column {missing[0]!r}")
        for row in reader:
            # line_num is the row's last line; minus the newlines in quoted cells it is the first.
            extra = row.pop(None, [])
            line = reader.line_num - sum(len(NEWLINE.findall(c)) for c in (*row.values(), *extra) if c)
            if extra:
                raise BadInput(f"{path}:{line}: more cells than columns: quote texts that contain commas")
            yield line, {name: cell for name, cell in row.items() if cell}
    except csv.Error as error:
        # The line where the row begins: an unclosed quote fails only at the end of the file.
        raise BadInput(f"{path}:{reader.line_num + 1}: broken CSV: {error}") from error
