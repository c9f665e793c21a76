"""Manifests: tables that say which prompt each file of a folder shows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sar_eval.documents import check_text, shorten
from sar_eval.errors import BadInput
from sar_eval.images.listing import name_first
from sar_eval.images.names import KnownPrompts
from sar_eval.images.numbers import Match
from sar_eval.tables import read_rows
from sar_eval.types import Json, Prompt

NAMES = ("manifest.jsonl", "manifest.csv", "manifest.tsv", "manifest.json")
IMAGE_FOLDERS = ("metadata.jsonl", "metadata.csv")  # what `datasets` calls them
PATTERN = "manifest.jsonl or manifest.csv with `file` and `prompt_id` or `prompt`"
# Our columns, and the names that they have in image folders of datasets and elsewhere.
COLUMNS = {
    "file": ("file_name", "filename", "image", "path"),
    "prompt_id": ("id",),
    "prompt": ("text", "caption"),
    "index": (),
    "tile": (),
}
WHOLE = re.compile(r"(\d{1,18})(?:\.0*)?", re.ASCII)  # a spreadsheet or pandas may write 1.0
MAX_INDEX = 1_000_000


def find_manifest(folder: Path) -> Path | None:
    """The manifest of a folder, if it has one."""
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    return found or next((folder / name for name in IMAGE_FOLDERS if _is_of_images(folder / name)), None)


def _is_of_images(path: Path) -> bool:
    """Whether a file of metadata is that of an image folder of `datasets`, which names files."""
    try:
        with path.open("rb") as file:
            return b"file_name" in file.read(4096)
    except OSError:
        return False


def read_manifest(path: Path, prompts: Sequence[Prompt], notes: list[str]) -> tuple[list[Match], bool]:
    """The files of a manifest with their prompts, and whether they are grids (have a column `tile`).

    Raises:
        BadInput: naming the line: a file that is not there or not beside the manifest, an unknown prompt,
            an index that is none.
    """
    known, by_text = KnownPrompts(prompts), _by_text(prompts)
    lines: Counter[str] = Counter()  # of each prompt so far
    matches, grids, renamed = [], Counter[bool](), dict[str, str]()
    for number, given in read_rows(path, notes=notes):
        where = f"{path}:{number}"
        check_text(given, where)
        row = _our_columns(given, renamed)
        file = _file(path.parent, row, where)
        prompt = _prompt(row, known, by_text, where)
        index = _index(row, lines[prompt.id], where)
        grids[_is_tile(row, index, where)] += 1
        matches.append(Match(prompt, index, file))
        lines[prompt.id] += 1
    if len(grids) > 1:
        raise BadInput(f"{path}: {grids[True]} rows have a `tile` and {grids[False]} have none")
    notes += _notes(path, matches, renamed, is_grid=bool(grids[True]))
    return matches, bool(grids[True])


def caption_rows(path: Path, notes: list[str]) -> list[tuple[Path, str]]:
    """The files of a manifest with the prompts that it gives them, "" where it gives none.

    Raises:
        BadInput: naming the line: a file that is not there, or not beside the manifest.
    """
    renamed: dict[str, str] = {}
    pairs: dict[Path, str] = {}
    for number, given in read_rows(path, notes=notes):
        check_text(given, f"{path}:{number}")
        row = _our_columns(given, renamed)
        text = row.get("prompt")
        file = _file(path.parent, row, f"{path}:{number}")
        pairs[file] = "" if text is None else str(text).strip()
    if renamed:
        used = ", ".join(f"{ours} from {shorten(theirs)}" for ours, theirs in renamed.items())
        notes.append(f"{path}: columns are taken by other names: {used}")
    return list(pairs.items())


def _by_text(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    found: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        found.setdefault(prompt.text, []).append(prompt)
    return found


def _our_columns(row: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """A row with our names for its columns where they differ in case, or are those of image folders."""
    if row.keys() >= {"file", "prompt_id"}:
        return row
    present = {name.strip().lower(): name for name in reversed(row)}
    found = dict(row)
    for ours, others in COLUMNS.items():
        theirs = next((present[name] for name in (ours, *others) if name in present), None)
        if ours not in row and theirs is not None:
            found[ours] = row[theirs]
            renamed[ours] = theirs
    return found


def _prompt(
    row: dict[str, Any], known: KnownPrompts, by_text: Mapping[str, list[Prompt]], where: str
) -> Prompt:
    """The prompt of a row: by its id, which may be a number or was made safe, or else by its text."""
    name, text = ("" if row.get(key) is None else str(row[key]) for key in ("prompt_id", "prompt"))
    name = name.strip()
    number = WHOLE.fullmatch(name)
    found = known.with_id(name) or (number and (known.with_id(number[1]) or known.with_number(number[1])))
    same = by_text.get(text, [])
    if not found and len(same) > 1:
        ids = ", ".join(prompt.id for prompt in same[:3])
        raise BadInput(f"{where}: {len(same)} prompts have this text ({ids}): give their `prompt_id`")
    found = found or next(iter(same), None) or known.with_text(text)
    if found is None:
        raise BadInput(_unknown_prompt(row, where))
    return found


def _notes(
    path: Path, matches: Sequence[Match], renamed: Mapping[str, str], *, is_grid: bool
) -> Iterator[str]:
    if others := [name for name in NAMES if (path.parent / name).is_file() and name != path.name]:
        yield f"{path} is taken, and not {', '.join(others)}"
    if renamed:
        used = ", ".join(f"{ours} from {shorten(theirs)}" for ours, theirs in renamed.items())
        yield f"{path}: columns are taken by other names: {used}"
    times = Counter(match.path for match in matches)
    if not is_grid and (several := [file for file, number in times.items() if number > 1]):
        yield f"{path}: {len(several)} files are taken as several images each: {name_first(several)}"


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
    name = name.strip() if not os.path.lexists(folder / name) else name
    if "\\" in name and not os.path.lexists(folder / name):
        name = name.replace("\\", "/")  # written on Windows
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
    number = WHOLE.fullmatch(str(value).strip())
    if number is None or isinstance(value, bool) or len(number[1]) > len(str(MAX_INDEX)):
        raise BadInput(f"{where}: `index` is {shorten(value)}, it must be a whole number from 0")
    return int(number[1])


def _is_tile(row: dict[str, Any], index: int, where: str) -> bool:
    tile = row.get("tile")
    if tile not in (None, "") and str(tile) != str(index):
        raise BadInput(f"{where}: `tile` is {shorten(tile)}, it must be the `index` or be left out")
    return tile not in (None, "")
