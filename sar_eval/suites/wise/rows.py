"""WISE's prompt files: three JSON lists, of both forms the same keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.suites.source import ImportedSuite, official_file
from sar_eval.suites.wise.official import PROMPTS, Form
from sar_eval.types import Json, Prompt


def import_rows(source: Path, files: Sequence[str], form: Form) -> ImportedSuite:
    """Prompts by id, each with its category as tag and `explanation`, `subcategory` as checks.

    Raises:
        BadInput: with file and row: a missing file, no list, a row without text, explanation or id, an id
            that no category has, or one that is there twice.
    """
    found: dict[int, Prompt] = {}
    for name in files:
        path = official_file(source, name)
        rows = read_json(path)
        if not isinstance(rows, list):
            raise BadInput(f"{path}: it must be a list of prompts, not {shorten(rows)}")
        for number, row in enumerate(rows, 1):
            where = f"{path}: row {number}"
            prompt_id, prompt = _prompt(row, form, where)
            if prompt_id in found:
                raise BadInput(f"{where}: prompt_id {prompt_id} is there twice")
            found[prompt_id] = prompt
    missing = [number for number in range(1, PROMPTS + 1) if number not in found]
    notes = (
        [f"{len(missing)} of the ids 1 to {PROMPTS:,} are missing, {missing[0]} first"] if missing else []
    )
    return ImportedSuite([found[number] for number in sorted(found)], tuple(notes))


def _prompt(row: Json, form: Form, where: str) -> tuple[int, Prompt]:
    if not isinstance(row, Mapping):
        raise BadInput(f"{where} must be an object, not {shorten(row)}")
    number: Json = row.get("prompt_id")
    whole = isinstance(number, int) and not isinstance(number, bool)
    if not whole or (category := form.category(number)) is None:
        raise BadInput(
            f"{where}: prompt_id is {shorten(number)}: it must be a number from 1 to {PROMPTS:,}"
        )
    texts = {key: row.get(key) for key in ("Prompt", "Explanation")}
    for key, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{where}: {key} is {shorten(text)}: it must be a text")
    checks = {"explanation": texts["Explanation"], "subcategory": str(row.get("Subcategory", ""))}
    return number, Prompt(str(number), str(texts["Prompt"]), category.lower(), checks)
