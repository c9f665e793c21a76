"""Load, validate and hash prompt suites."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from sar_eval.errors import BadInput
from sar_eval.suites.csv_rows import csv_rows
from sar_eval.types import SAFE_ID, Prompt

FORMATS = (".jsonl", ".txt", ".csv", ".parquet")
RELATIONS = ("left of", "right of", "above", "below")  # GenEval's


@dataclass(frozen=True, slots=True)
class Suite:
    """Prompts in file order, and a digest of all their fields."""

    name: str
    prompts: tuple[Prompt, ...]
    digest: str


def load_suite(path: Path) -> Suite:
    """Read a JSONL, TXT (one prompt a line), CSV or Parquet file.

    Columns: `text` (or `prompt`), and optionally `id`, `tag`, `checks`, `split`. A line of GenEval's
    metadata (`tag`, `include`, `prompt`) works unchanged. Without ids, prompts are numbered. Empty
    values (null, empty CSV cells) count as missing.

    Raises:
        BadInput: the file or a prompt is unusable; names file and line.
    """
    data = _read(path)
    if path.suffix not in FORMATS:
        raise BadInput(f"{path}: a prompt file ends in {', '.join(FORMATS)}")
    prompts = tuple(_prompt(row, f"{path}:{line}", i) for i, (line, row) in enumerate(_rows(path, data)))
    if not prompts:
        raise BadInput(f"{path} has no prompts")
    _check_unique(prompts, path)
    return Suite(path.stem, prompts, digest(prompts))


def digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256 over ids, texts, tags, checks and splits, 16 hex digits."""
    total = hashlib.sha256()
    for p in prompts:
        total.update(json.dumps([p.id, p.text, p.tag, p.checks, p.split], sort_keys=True).encode())
    return total.hexdigest()[:16]


def _rows(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (row number in Parquet) and columns of every prompt."""
    if path.suffix == ".parquet":
        from sar_eval.storage.files import read_table

        yield from enumerate(read_table(path), 1)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error}") from error
    yield from csv_rows(text, path) if path.suffix == ".csv" else _line_rows(text, path)


def _read(path: Path) -> bytes:
    try:
        # As bytes: reading as text would rewrite the newlines inside quoted CSV cells.
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"no prompt file {path}") from error
    except IsADirectoryError as error:
        raise BadInput(f"{path} is a directory, not a prompt file") from error
    except OSError as error:
        raise BadInput(f"cannot read prompt file {path}: {error.strerror or error}") from error


def _line_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # Not splitlines(): it also splits at U+2028 and others, which JSON strings may contain.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            yield (
                number,
                _json_object(line.removesuffix("\r"), where)
                if path.suffix == ".jsonl"
                else {"text": line.strip()},
            )


def _json_object(line: str, where: str) -> dict[str, Any]:
    row = _parse(line, where)
    if not isinstance(row, dict):
        raise BadInput(f"{where}: each line must be a JSON object")
    return row


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: broken JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, endless nesting
        raise BadInput(f"{where}: unusable JSON: {error}") from error


def _prompt(row: dict[str, Any], where: str, index: int) -> Prompt:
    row = _without_none(row)
    text = row.get("text") or row.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{where}: no prompt text (a string called `text` or `prompt`)")
    prompt_id = str(row["id"]) if row.get("id", "") != "" else f"{index:05d}"
    if not SAFE_ID.fullmatch(prompt_id):
        raise BadInput(
            f"{where}: id {prompt_id!r} is not safe as a file name: use letters, digits, '.', '_', '-', "
            "a letter or digit first, 128 at most"
        )
    checks = _checks(row, where)
    prompt = Prompt(prompt_id, text, str(row.get("tag") or ""), checks, str(row.get("split") or ""))
    _check_storable(prompt, where)
    return prompt


def _without_none(value: Any) -> Any:
    """Drop None from nested objects: Parquet fills struct fields that a row lacks with null."""
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _check_storable(prompt: Prompt, where: str) -> None:
    """Raise BadInput unless the prompt can be hashed, stored and displayed."""
    try:
        json.dumps([prompt.text, prompt.tag, prompt.checks, prompt.split], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{where}: contains a lone surrogate (half a character, such as \\ud800)") from error
    except TypeError as error:  # dates and bytes from Parquet
        raise BadInput(f"{where}: checks cannot be stored as JSON: {error}") from error


def _checks(row: dict[str, Any], where: str) -> Any:
    """The `checks` column (an object, a list, or either as JSON text), or a GenEval line itself."""
    checks = row.get("checks")
    if isinstance(checks, str):
        checks = _without_none(_parse(checks, f"{where}, column checks")) if checks.strip() else None
    if checks is None and "include" in row:
        checks = {name: value for name, value in row.items() if name not in ("id", "split", "checks")}
    if not isinstance(checks, dict | list | None):
        raise BadInput(f"{where}: checks must be an object or a list, not {checks!r}")
    if isinstance(checks, dict) and "include" in checks:
        _check_geneval(checks, where)
    return checks


def _check_geneval(checks: dict[str, Any], where: str) -> None:
    """Raise BadInput for GenEval metadata that no verdict can be decided on."""
    for field in ("include", "exclude"):
        entries = checks.get(field, [])
        if not isinstance(entries, list):
            raise BadInput(f"{where}: {field} must be a list of objects, not {entries!r}")
        for index, entry in enumerate(entries):
            problem = _entry_problem(entry) or (
                _include_problem(entry, index) if field == "include" else ""
            )
            if problem:
                raise BadInput(f"{where}: {field}[{index}] {problem}")


def _entry_problem(entry: Any) -> str:
    """What is wrong with the class and count of one entry ("" if nothing)."""
    if not isinstance(entry, dict):
        return f"must be an object with class and count, not {entry!r}"
    if not isinstance(name := entry.get("class"), str) or not name.strip():
        return f"needs a class (a name), not {name!r}"
    if not _is_whole(count := entry.get("count")) or count < 1:
        return f"needs a count (a whole number >= 1), not {count!r}"
    return ""


def _include_problem(entry: dict[str, Any], index: int) -> str:
    """What is wrong with the colour and position of the entry at `index` ("" if nothing)."""
    color, position = entry.get("color", "any"), entry.get("position")
    if not isinstance(color, str) or not color.strip():
        return f"has a color that is not a name: {color!r}"
    if "position" not in entry:
        return ""
    if not isinstance(position, list) or len(position) != 2:
        return f"has a position that is not [relation, index]: {position!r}"
    relation, target = position
    if relation not in RELATIONS:
        return f"has a position that is none of {', '.join(RELATIONS)}: {relation!r}"
    if not _is_whole(target) or not 0 <= target < index:
        return f"has a position relative to {target!r}: give the index of an earlier entry of include"
    return ""


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_unique(prompts: tuple[Prompt, ...], path: Path) -> None:
    ids: set[str] = set()
    for prompt in prompts:
        if prompt.id.lower() in ids:
            raise BadInput(f"{path}: duplicate id {prompt.id!r} (upper and lower case count as the same)")
        ids.add(prompt.id.lower())
