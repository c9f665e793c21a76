"""Manifests: tables that say which prompt each file of a folder shows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sar_eval.documents import check_text, shorten
from sar_eval.errors import BadInput
from sar_eval.images.numbers import Match
from sar_eval.tables import read_rows
from sar_eval.types import Json, Prompt, safe_id

NAMES = ("manifest.jsonl", "manifest.csv", "manifest.tsv", "manifest.json")
PATTERN = "manifest.jsonl or manifest.csv with `file` and `prompt_id` or `prompt`"
MAX_INDEX = 1_000_000


def find_manifest(folder: Path) -> Path | None:
    """The manifest of a folder, if it has one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read_manifest(path: Path, prompts: Sequence[Prompt], notes: list[str]) -> tuple[list[Match], bool]:
    """The files of a manifest with their prompts, and whether they are grids (have a column `tile`).

    Raises:
        BadInput: naming the line: a file that is not there or not beside the manifest, an unknown prompt,
            an index that is none.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    by_text = {prompt.text: prompt for prompt in prompts}
    lines: Counter[str] = Counter()  # of each prompt so far
    matches, grids = [], Counter[bool]()
    for number, row in read_rows(path, notes=notes):
        where = f"{path}:{number}"
        check_text(row, where)
        file = _file(path.parent, row, where)
        prompt_id = str(row.get("prompt_id", ""))
        prompt = (
            by_id.get(prompt_id) or by_id.get(safe_id(prompt_id)) or by_text.get(str(row.get("prompt")))
        )
        if prompt is None:
            raise BadInput(_unknown_prompt(row, where))
        index = _index(row, lines[prompt.id], where)
        grids[_is_tile(row, index, where)] += 1
        matches.append(Match(prompt, index, file))
        lines[prompt.id] += 1
    if len(grids) > 1:
        raise BadInput(f"{path}: {grids[True]} rows have a `tile` and {grids[False]} have none")
    return matches, bool(grids[True])


def manifest_rows(
    files: dict[str, Path], folder: Path, prompts: Sequence[Prompt], is_grid: bool
) -> Iterator[dict[str, Json]]:
    """Rows that say of every draw, in the suite's order, which file shows it."""
    texts = {prompt.id: (number, prompt.text) for number, prompt in enumerate(prompts)}
    found = [(*key.rpartition("/")[::2], path) for key, path in files.items()]
    for prompt_id, index, path in sorted(found, key=lambda row: (texts[row[0]][0], int(row[1]))):
        row: dict[str, Json] = {"file": path.relative_to(folder).as_posix(), "prompt_id": prompt_id}
        row |= {"index": int(index), "prompt": texts[prompt_id][1]}
        yield row | ({"tile": int(index)} if is_grid else {})


def _file(folder: Path, row: dict[str, Any], where: str) -> Path:
    name = row.get("file")
    if not isinstance(name, str) or not name:
        raise BadInput(
            f"{where}: no `file` inside {folder}; the columns are {', '.join(map(shorten, row))}"
        )
    inside = os.path.relpath(os.path.normpath(folder / name), folder)
    if inside == os.pardir or inside.startswith(f"{os.pardir}{os.sep}"):
        raise BadInput(f"{where}: no `file` inside {folder} but {shorten(name)}")
    # A link that leads nowhere is there: it becomes an error of its image.
    if not os.path.lexists(file := folder / name):
        raise BadInput(f"{where}: no file {file}")
    return file


def _unknown_prompt(row: dict[str, Any], where: str) -> str:
    named = {name: row[name] for name in ("prompt_id", "prompt") if name in row}
    seen = shorten(named) if named else f"the columns are {', '.join(map(shorten, row))}"
    return f"{where}: neither `prompt_id` nor `prompt` names a prompt of this suite: {seen}"


def _index(row: dict[str, Any], default: int, where: str) -> int:
    value = row.get("index")
    if value in (None, ""):
        return default
    if not str(value).isdecimal() or len(str(value)) > len(str(MAX_INDEX)):
        raise BadInput(f"{where}: `index` is {shorten(value)}, it must be a whole number from 0")
    return int(value)


def _is_tile(row: dict[str, Any], index: int, where: str) -> bool:
    tile = row.get("tile")
    if tile not in (None, "") and str(tile) != str(index):
        raise BadInput(f"{where}: `tile` is {shorten(tile)}, it must be the `index` or be left out")
    return tile not in (None, "")
