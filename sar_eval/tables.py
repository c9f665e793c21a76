"""Read tables that anyone may have written: CSV, TSV, JSON Lines, JSON and plain lines.

Every list of prompts, manifest and file of questions passes `read_rows`; only Parquet is read elsewhere
(`storage.files`). What is accepted although it is not the plain form is said in a note.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from sar_eval.documents import parse_json, shorten
from sar_eval.encodings import find_encoding
from sar_eval.errors import BadInput

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Columns that hold texts or name files, by which a header and a row are known as such.
ROW_NAMES = frozenset({"text", "prompt", "prompts", "caption", "captions", "file", "file_name"})
MAX_ARRAY = 256_000_000  # characters of a JSON array, which is read as a whole

Row = tuple[int, dict[str, Any]]
Quoting = Literal[0, 3]  # QUOTE_MINIMAL, QUOTE_NONE


def read_rows(
    path: Path, *, notes: list[str], required: Sequence[str] = (), encoding: str | None = None
) -> Iterator[Row]:
    """Number of the line a row begins on, and its cells by column.

    The suffix says the format. A JSON file is an array, and its entries (as the lines of JSON Lines) are
    objects, or texts, which become the column `text`, as do the lines of a TXT file. Cells of CSV and TSV
    are texts, empty ones are left out, and so are rows without any.

    Args:
        path: ends in one of `FORMATS`, in any case.
        notes: what was assumed is appended while rows are read: encoding, delimiter, quotes.
        required: columns that the table must have; a column that differs in case only gets this name.
        encoding: of the text; None finds out whether it is UTF-8, or UTF-16 or UTF-32 with its mark.

    Raises:
        BadInput: with file and line: no such file, another format or encoding, a missing or doubled
            column, a row with more cells than columns, broken CSV or JSON (see `parse_json`).
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path}: a table ends in {', '.join(FORMATS)}")
    try:
        yield from reader(path, find_encoding(path, notes, encoding), notes, required)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def _csv_rows(path: Path, encoding: str, notes: list[str], required: Sequence[str]) -> Iterator[Row]:
    delimiter = _find_delimiter(path, encoding, notes, required)
    rows = _cells(path, encoding, delimiter, _find_quoting(path, encoding, delimiter, notes))
    line, header = next(rows, (1, []))
    names = _column_names(header, f"{path}:{line}", notes, required)
    width, has_unnamed = len(names), "" in names
    for line, cells in rows:
        if len(cells) > width and any(cells[width:]):
            raise BadInput(
                f"{path}:{line}: more cells than columns: quote texts that contain {DELIMITERS[delimiter]}"
            )
        row = dict(zip(names, cells, strict=False))
        if has_unnamed or not all(cells):
            row = {name: cell for name, cell in row.items() if cell and name}
        yield line, row


def _cells(
    path: Path, encoding: str, delimiter: str, quoting: Quoting = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of every row that has any, `sep=;` (which spreadsheets write) not counted as one."""
    line = 1
    # As they are: newlines inside quoted cells belong to the text.
    with path.open(encoding=encoding, newline="") as file:
        # Strict: otherwise an unclosed quote silently swallows the rest of the file.
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            for cells in reader:
                is_mark = line == 1 and _SEPARATOR.fullmatch(delimiter.join(cells))
                if not is_mark and any(map(str.strip, cells)):
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            # The line where the row begins: an unclosed quote fails only at the end of the file.
            raise BadInput(f"{path}:{line}: broken CSV: {error}") from error


_SEPARATOR = re.compile("sep=[,;\t|]{1,2}")


def _column_names(
    header: Sequence[str], where: str, notes: list[str], required: Sequence[str]
) -> list[str]:
    """Names of the columns without blanks around them; "" for one that is ignored."""
    names = [name.strip().strip("\ufeff\u200b") for name in header]  # some tools write two byte order marks
    found = ", ".join(shorten(name) for name in names if name) or "none"
    wanted = {name.lower(): name for name in required if name not in names}
    names = [wanted.get(name.lower(), name) for name in names]
    if missing := [name for name in required if name not in names]:
        raise BadInput(f"{where}: no column {missing[0]!r}; the columns are {found}")
    if twice := [name for name, number in Counter(names).items() if number > 1 and name]:
        raise BadInput(f"{where}: the column {shorten(twice[0])} is there twice")
    if "" in names[:-1]:  # as the last one it is but a delimiter at the end of the line
        notes.append(f"{where}: a column without a name is ignored")
    return names


def _find_delimiter(path: Path, encoding: str, notes: list[str], required: Sequence[str]) -> str:
    """The delimiter of the suffix, unless the header shows another one."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    headers = {sign: _header(path, encoding, sign) for sign in (usual, *DELIMITERS)}
    if len(headers[usual]) > 1 and {name.lower() for name in required} <= headers[usual]:
        return usual
    found = max(headers, key=lambda sign: len(headers[sign]))
    if found != usual:
        notes.append(f"{path}: cells are separated by {DELIMITERS[found]}")
    return found


def _header(path: Path, encoding: str, delimiter: str) -> set[str]:
    try:
        return {name.strip().lower() for name in next(_cells(path, encoding, delimiter), (1, []))[1]}
    except BadInput:  # quotes that are none with this delimiter
        return set()


def _find_quoting(path: Path, encoding: str, delimiter: str, notes: list[str]) -> Quoting:
    """Whether quotes enclose cells. In TSV they often do not: a text may begin with one."""
    if delimiter != "\t":
        return csv.QUOTE_MINIMAL
    plain, quoted = (_widths(path, encoding, way) for way in (csv.QUOTE_NONE, csv.QUOTE_MINIMAL))
    if not plain or plain == quoted or max(plain) > plain[0]:
        return csv.QUOTE_MINIMAL
    if quoted is not None and len(set(plain)) > 1:  # by quotes that hold newlines
        return csv.QUOTE_MINIMAL
    notes.append(f"{path}: quotes are taken as part of the text")
    return csv.QUOTE_NONE


def _widths(path: Path, encoding: str, quoting: Quoting) -> bytes | None:
    """How many cells each row of a TSV has; None if its quotes are broken."""
    try:
        return bytes(min(len(cells), 255) for _, cells in _cells(path, encoding, "\t", quoting))
    except BadInput:
        return None


def _text_rows(path: Path, encoding: str, notes: list[str], required: Sequence[str]) -> Iterator[Row]:
    if missing := [name for name in required if name != "text"]:
        raise BadInput(f"{path}: no column {missing[0]!r} in lines of text")
    for number, line in _lines(path, encoding):
        text = line.strip()
        if number == 1 and (suffix := _looks_like(text)):
            notes.append(f"{path}: lines are taken whole, {suffix}")
        if "\r" in text:
            raise BadInput(f"{path}:{number}: carriage returns inside a line: convert it with `mac2unix`")
        if text:
            yield number, {"text": text}


def _looks_like(line: str) -> str:
    """What a text's first line seems to be instead, with the name that would say so; "" if nothing."""
    if "\t" in line:
        return "tabs too; a table's name ends in .tsv"
    if re.match(r"""\[?\s*\{\s*"|\[\s*("|$)""", line):
        return "the signs of JSON too; its name ends in .jsonl or .json"
    cells = [cell.strip().lower() for cell in re.split("[,;]", line)]
    is_header = len(cells) > 1 and not ROW_NAMES.isdisjoint(cells)
    return "the first one too; a table's name ends in .csv" if is_header else ""


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    # They end at newlines only, not at U+2028 and others, which JSON strings may contain.
    with path.open(encoding=encoding, newline="\n") as file:
        yield from enumerate(file, 1)


def _json_rows(path: Path, encoding: str, notes: list[str], required: Sequence[str]) -> Iterator[Row]:
    """Entries of an array, or of lines: the first character says which."""
    first = next((line.lstrip()[:1] for _, line in _lines(path, encoding) if line.strip()), "")
    is_array, is_usual = first == "[", (first == "[") == (path.suffix.lower() == ".json")
    if first == "{" and not is_usual and (rows := _object_rows(path, encoding, notes)):
        yield from ((line, _required(row, f"{path}:{line}", required)) for line, row in rows)
        return
    if first and not is_usual:
        if not is_array and not _is_an_object_a_line(path, encoding):
            raise BadInput(f"{path}: must be one array ([...]) of objects or texts")
        notes.append(f"{path}: read as {'one JSON array' if is_array else 'JSON Lines, one object a line'}")
    read, unit = (_array_entries, "entry") if is_array else (_line_entries, "line")
    for line, value in read(path, encoding):
        row = {"text": value} if isinstance(value, str) else value
        if not isinstance(row, dict):
            raise BadInput(
                f"{path}:{line}: each {unit} must be a JSON object or text, not {shorten(value)}"
            )
        yield line, _required(row, f"{path}:{line}", required) if required else row


def _object_rows(path: Path, encoding: str, notes: list[str]) -> list[Row]:
    """Rows of a file that is one object with all of them; none if it is JSON Lines, a row, or neither."""
    filled = islice((line for _, line in _lines(path, encoding) if line.strip()), 2)
    if len(list(filled)) > 1 and _is_an_object_a_line(path, encoding):
        return []
    text = _whole_text(path, encoding)
    if _blanks(text, _end_of_entry(text, _blanks(text, 0), path)) < len(text):
        return []
    data = parse_json(text, str(path))
    rows, what = _rows_in(data)
    if rows:
        notes.append(f"{path}: one object is read as {what}")
    return [(1, row) for row in rows] if len(rows) != len(data) else _with_lines(rows, data, text)


def _with_lines(rows: list[dict[str, Any]], keys: Iterable[str], text: str) -> list[Row]:
    """Rows with the lines of their keys in the text, as far as they are found in order."""
    line, at, found = 1, 0, list[Row]()
    for key, row in zip(keys, rows, strict=True):
        position = text.find(json.dumps(key, ensure_ascii=False), at)
        line, at = (line, at) if position < 0 else (line + text.count("\n", at, position), position)
        found.append((line, row))
    return found


def _rows_in(data: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Rows in an object that is more than one row, and how they are in it."""
    header, cells = data.get("columns"), data.get("data")
    if isinstance(header, list) and isinstance(cells, list) and all(isinstance(row, list) for row in cells):
        return [dict(zip(map(str, header), row, strict=False)) for row in cells], "columns and rows"
    texts = [value for name, value in data.items() if name.strip().lower() in ROW_NAMES]
    if texts and len(data) > 1 and (rows := _columns_in(data)):
        return rows, "columns"
    lists = {name: value for name, value in data.items() if _are_entries(name, value)}
    if len(lists) == 1 and not any(isinstance(value, str) for value in texts):
        [(name, entries)] = lists.items()
        rows = [{"text": entry} if isinstance(entry, str) else entry for entry in entries]
        return rows, f"the list {shorten(name)} in it"
    return ([], "") if texts else (_named_in(data), "prompts by their ids")


def _columns_in(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an object of columns: lists of cells, or cells by their row's number, as pandas writes."""
    columns = [list(value.values()) if isinstance(value, dict) else value for value in data.values()]
    if any(not isinstance(cells, list) for cells in columns) or len({len(cells) for cells in columns}) != 1:
        return []
    return [dict(zip(data, row, strict=True)) for row in zip(*columns, strict=True)]


def _named_in(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows, or texts, of an object that has each under its id."""
    if all(isinstance(value, dict) for value in data.values()):
        return [{"id": name, **row} for name, row in data.items()]
    if len(data) > 1 and all(isinstance(value, str) for value in data.values()):
        return [{"id": name, "text": text} for name, text in data.items()]
    return []


def _are_entries(name: str, value: Any) -> bool:
    """Whether a value is a list of rows, or of texts under a name that says so."""
    if not isinstance(value, list) or not value:
        return False
    is_named = name.strip().lower() in ROW_NAMES
    return all(isinstance(entry, dict) or (is_named and isinstance(entry, str)) for entry in value)


def _is_an_object_a_line(path: Path, encoding: str) -> bool:
    try:
        return isinstance(next(_line_entries(path, encoding))[1], dict | str)
    except BadInput:
        return False


def _line_entries(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    file = str(path)
    for number, line in _lines(path, encoding):
        if text := line.rstrip():
            yield number, parse_json(text, f"{file}:{number}")


def _required(row: dict[str, Any], where: str, required: Sequence[str]) -> dict[str, Any]:
    if missing := [name for name in required if name not in row]:
        wanted = {name.lower(): name for name in missing}
        row = {wanted.get(name.strip().lower(), name): cell for name, cell in row.items()}
        if missing := [name for name in missing if name not in row]:
            found = ", ".join(shorten(name) for name in row) or "none"
            raise BadInput(f"{where}: no column {missing[0]!r}; the columns are {found}")
    return row


def _array_entries(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """Entries of a JSON array one by one, each with its line."""
    text = _whole_text(path, encoding)
    line, at = 1, 0
    position = _blanks(text, text.index("[") + 1)
    if text.startswith("]", position):
        position = _blanks(text, position + 1)
    else:
        while True:
            line, at = line + text.count("\n", at, position), position
            end = _end_of_entry(text, position, path)
            yield line, parse_json(text[position:end], f"{path}:{line}")
            position = _blanks(text, end)
            if not text.startswith(",", position):
                break
            position = _blanks(text, position + 1)
        if not text.startswith("]", position):
            raise _broken(text, position, path, "expected a comma or the end of the array")
        position = _blanks(text, position + 1)
    if position < len(text):
        raise _broken(text, position, path, "something follows the array")


def _whole_text(path: Path, encoding: str) -> str:
    with path.open(encoding=encoding, newline="") as file:
        text = file.read(MAX_ARRAY + 1)
    if len(text) > MAX_ARRAY:
        raise BadInput(f"{path} is an array of over {MAX_ARRAY:,} characters: write it as JSON Lines")
    return text


def _blanks(text: str, position: int) -> int:
    found = re.compile(r"[ \t\r\n]*").match(text, position)
    return found.end() if found else position


def _end_of_entry(text: str, position: int, path: Path) -> int:
    try:
        return _SCANNER.raw_decode(text, position)[1]
    except json.JSONDecodeError as error:
        raise _broken(text, error.pos, path, error.msg) from error
    except RecursionError as error:
        raise _broken(text, position, path, "nested too deep") from error


# Only to find where an entry ends: `parse_json` reads it.
_SCANNER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)


def _broken(text: str, position: int, path: Path, problem: str) -> BadInput:
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    return BadInput(f"{path}:{line}: broken JSON: {problem} at column {column}")


_READERS: dict[str, Callable[[Path, str, list[str], Sequence[str]], Iterable[Row]]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".txt": _text_rows,
}
FORMATS = tuple(_READERS)
