"""Load, validate and hash prompt suites."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

from sar_eval.documents import check_text, parse_json, shorten
from sar_eval.errors import BadInput
from sar_eval.suites.checks import check_geneval
from sar_eval.suites.sources import (
    COLUMNS,
    STREAMED_FROM,
    Assumptions,
    Place,
    Row,
    parquet_rows,
    read_prompt_rows,
)
from sar_eval.types import SAFE_ID, Prompt, suite_digest

_is_safe = SAFE_ID.fullmatch


@dataclass(frozen=True, slots=True)
class Suite:
    """Prompts in file order, and a digest of all their fields.

    `notes` say what was assumed about the file: they are for the user, and in no digest.
    """

    name: str
    prompts: Sequence[Prompt]
    digest: str
    notes: tuple[str, ...] = field(default=(), compare=False)


def load_suite(path: Path, encoding: str | None = None) -> Suite:
    """Read a CSV, TSV, JSONL, JSON, TXT (one prompt a line) or Parquet file, or a folder of `ID.txt` files.

    Columns: `text` (or `prompt`), and optionally `id`, `tag`, `checks`, `split`; where there is neither
    `text` nor `prompt`, those in `COLUMNS` in any case. A line of GenEval's metadata (`tag`, `include`,
    `prompt`) works unchanged. Without ids, prompts are numbered; ids that are no file names get a safe
    one. Empty values (null, empty CSV cells) count as missing.

    Args:
        path: of the file or folder.
        encoding: of its text; None for UTF-8, or UTF-16 with its mark.

    Raises:
        BadInput: the file or a prompt is unusable; names file and line.
    """
    if path.suffix.lower() == ".parquet" and (number := parquet_rows(path)) > STREAMED_FROM:
        return _streamed(path, number)
    notes: list[str] = []
    assumed = Assumptions()
    rows = read_prompt_rows(path, notes, encoding)
    with _collecting_no_garbage():
        prompts = tuple(
            make_prompt(row, index, place, path, assumed) for index, (place, row) in enumerate(rows)
        )
    if not prompts:
        raise BadInput(f"{path} has no prompts")
    _check_unique(prompts, path)
    return Suite(path.stem, prompts, suite_digest(prompts), (*notes, *assumed.notes(path)))


def _streamed(path: Path, number: int) -> Suite:
    """A suite that is never read as a whole; its digest is that of the file's bytes."""
    from sar_eval.storage.prompt_table import file_digest
    from sar_eval.suites.streamed import StreamedPrompts

    note = (
        f"{path}: {number:,} prompts are read when they are needed; that an id is there twice is not seen"
    )
    return Suite(path.stem, StreamedPrompts(path), file_digest(path), (note,))


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """Rows make no reference cycles, and looking for them again and again costs a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def make_prompt(row: Row, index: int, place: Place, path: Path, assumed: Assumptions) -> Prompt:
    """The prompt in a row.

    Args:
        row: its columns.
        index: of the prompt in its suite, from 0.
        place: line, row number or file, for messages.
        path: of the suite.
        assumed: gets what was assumed.

    Raises:
        BadInput: naming the place and what is wrong.
    """
    given, text = row, row.get("text") or row.get("prompt")
    if index == 0:
        assumed.look_at(row)
    if text is None or text == "":
        row = assumed.rename(row)
        text = row.get("text")
    name, tag, checks, split = row.get("id"), row.get("tag"), row.get("checks"), row.get("split")
    # The usual row is checked in the fewest steps: there may be millions.
    if type(text) is not str or "\x00" in text or text.isspace():
        raise _text_problem(given, text, _where(path, place))
    if type(name) is not str or not _is_safe(name):
        name = assumed.prompt_id(name, index, _where(path, place))
    if checks is not None or "include" in given:
        checks = _checks(given, checks, _where(path, place), assumed)
    tag = _label(tag, path, place) if tag else ""
    split = _label(split, path, place) if split else ""
    return Prompt(name, text, tag, checks, split)


def _label(value: Any, path: Path, place: Place) -> str:
    """A tag or split: there are few, so equal ones are one object; NaN is none, as pandas stores it."""
    if value != value:  # noqa: PLR0124
        return ""
    text = str(value)
    if "\x00" in text:
        check_text(text, _where(path, place))
    return intern(text)


def _where(path: Path, place: Place) -> str:
    return f"{path}:{place}" if isinstance(place, int) else str(place)


def _text_problem(row: Row, text: Any, where: str) -> BadInput:
    if isinstance(text, str) and "\x00" in text:
        return BadInput(f"{where}: {shorten(text)} contains a NUL character")
    columns = ", ".join(shorten(name) for name in row) or "none"
    if text is not None and not isinstance(text, str):
        columns += f"; it is {shorten(text)}"
    wanted = ", ".join(f"`{name}`" for name in COLUMNS["text"])
    return BadInput(f"{where}: no prompt text (a string called {wanted}); the columns are {columns}")


def _without_none(value: Any) -> Any:
    """Drop None from nested objects: Parquet fills struct fields that a row lacks with null."""
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _checks(row: Row, checks: Any, where: str, assumed: Assumptions) -> Any:
    """The `checks` column (an object, a list, or either as JSON text), or a GenEval line itself."""
    if isinstance(checks, str):
        checks = parse_json(checks, f"{where}, column checks") if checks.strip() else None
    for key in ("include", "exclude"):  # a table may hold them as JSON, too
        if isinstance(text := row.get(key), str) and text.strip():
            row = row | {key: parse_json(text, f"{where}, column {key}")}
    row, checks = _without_none(row), _without_none(checks)
    if checks is None and "include" in row:
        checks = {name: value for name, value in row.items() if name not in ("id", "split", "checks")}
    if not isinstance(checks, dict | list | None):
        raise BadInput(f"{where}: checks must be an object or a list, not {shorten(checks)}")
    _check_storable(checks, where)
    if isinstance(checks, dict) and "include" in checks:
        for name in check_geneval(checks, where):
            assumed.classes.setdefault(name, where)
    return checks


def _check_storable(checks: Any, where: str) -> None:
    """Raise BadInput for what only Parquet can hold: dates, bytes, NaN, NUL characters, endless nesting."""
    try:
        text = json.dumps(checks, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{where}: checks cannot be stored as JSON: {error}") from error
    if "\\u0000" in text:
        check_text(checks, where)


def _check_unique(prompts: tuple[Prompt, ...], path: Path) -> None:
    if len(set(_lowered(prompts))) == len(prompts):
        return
    ids: set[str] = set()
    for prompt, lowered in zip(prompts, _lowered(prompts), strict=True):
        if lowered in ids:
            raise BadInput(f"{path}: duplicate id {prompt.id!r} (upper and lower case count as the same)")
        ids.add(lowered)


def _lowered(prompts: Iterable[Prompt]) -> Iterator[str]:
    """Ids in lower case, without a copy of those that are."""
    for prompt in prompts:
        lowered = prompt.id.lower()
        yield prompt.id if lowered == prompt.id else lowered
