"""DPG-Bench's official files as a prompt suite, with every inconsistency named.

The folder `dpg_bench` of https://github.com/TencentQQGYLab/ELLA (Apache-2.0) has the prompts in
`prompts/<item id>.txt` and their questions in `dpg_bench.csv`, which holds the texts once more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.suites.csv_rows import csv_rows
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.dpg.scoring import ancestors, l2, label
from sar_eval.types import SAFE_ID, Prompt

TABLE, TEXTS = "dpg_bench.csv", "prompts"
OFFICIAL_PROMPTS = 1065
COLUMNS = (
    "item_id",
    "text",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
)
# The 5 L1 and 13 L2 categories (ELLA, section 4).
CATEGORIES = {
    "global": ("",),
    "entity": ("whole", "part", "state"),
    "attribute": ("color", "shape", "size", "texture", "other"),
    "relation": ("spatial", "non-spatial"),
    "other": ("count", "text"),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """Prompts by first appearance in the CSV, their questions in row order, and what was found wrong.

    The official script depends on that order. A note begins with file and line.
    """

    prompts: tuple[Prompt, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    where: str  # file and line
    item: str
    text: str
    question: Question


@dataclass(frozen=True, slots=True)
class _Text:
    where: str
    text: str


def import_suite(source: Path) -> Imported:
    """Prompts and questions of the official folder, or of its CSV alone.

    A note tells what the official script would stumble over or what had to be decided; see docs/dpg.md.

    Raises:
        BadInput: with file and line, for what cannot be used: no CSV, a missing column, broken CSV, an
            id that is no file name, a number that is none, a row without question, a prompt without text.
    """
    table = source / TABLE if source.is_dir() else source
    folder = source / TEXTS if (source / TEXTS).is_dir() else None
    notes: list[str] = []
    items = _by_item(_rows(table), notes)
    _check_ids(items)
    files = _texts(folder) if folder else {}
    prompts = []
    for item, rows in items.items():
        questions = _unique(rows, notes)
        _check_graph(questions, notes)
        text = _text(rows, files.get(item), f"{folder / item}.txt" if folder else "", notes)
        checks = write_questions([row.question for row in questions])
        prompts.append(Prompt(item, text, checks=checks))
    _check_categories([row for rows in items.values() for row in rows], notes)
    notes += [
        f"{files[item].where}: no questions in {table}: left out of the suite"
        for item in files
        if item not in items
    ]
    return Imported(tuple(prompts), tuple(notes))


def to_lines(prompts: Sequence[Prompt]) -> bytes:
    """A suite file (JSONL) of these prompts."""
    rows = [{"id": prompt.id, "text": prompt.text, "checks": prompt.checks} for prompt in prompts]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise BadInput(f"no {path}: give ELLA's folder dpg_bench, or its {TABLE}") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error}") from error


def _rows(table: Path) -> list[_Row]:
    rows = [_row(cells, f"{table}:{line}") for line, cells in csv_rows(_read(table), table, needed=COLUMNS)]
    if not rows:
        raise BadInput(f"{table} has no rows")
    return rows


def _row(cells: Mapping[str, str], where: str) -> _Row:
    told = {name: cells.get(name, "").strip() for name in COLUMNS}
    for name in ("item_id", "question_natural_language"):
        if not told[name]:
            raise BadInput(f"{where}: no {name}")
    parents = [_number(part, "dependency", where) for part in told["dependency"].split(",")]
    question = Question(
        id=_number(told["proposition_id"], "proposition_id", where),
        text=told["question_natural_language"],
        parents=tuple(parent for parent in parents if parent),
        category=told["category_broad"],
        detail=told["category_detailed"],
        statement=told["tuple"],
    )
    if question.id == 0:
        raise BadInput(f"{where}: proposition_id is 0, which as a dependency means none")
    return _Row(where, told["item_id"], told["text"], question)


def _number(cell: str, column: str, where: str) -> int:
    if not (cell.strip().isascii() and cell.strip().isdecimal()):
        raise BadInput(f"{where}: {column} has {cell.strip()!r}, which is no whole number")
    return int(cell)


def _by_item(rows: Sequence[_Row], notes: list[str]) -> dict[str, list[_Row]]:
    items: dict[str, list[_Row]] = {}
    previous = ""
    for row in rows:
        if row.item in items and row.item != previous:
            notes.append(
                f"{row.where}: {row.item} goes on after rows of other items: the official script forgets "
                "its earlier rows, here they count, in both folds"
            )
        items.setdefault(row.item, []).append(row)
        previous = row.item
    return items


def _check_ids(items: Mapping[str, Sequence[_Row]]) -> None:
    seen: dict[str, str] = {}
    for item, rows in items.items():
        if not SAFE_ID.fullmatch(item):
            raise BadInput(
                f"{rows[0].where}: item_id {item!r} is not safe as a file name: use letters, digits, "
                "'.', '_', '-', a letter or digit first, 128 at most"
            )
        if (other := seen.setdefault(item.lower(), item)) != item:
            raise BadInput(f"{rows[0].where}: item_id {item!r} differs from {other!r} only in case")


def _texts(folder: Path) -> dict[str, _Text]:
    return {path.stem: _Text(str(path), _read(path).strip()) for path in sorted(folder.glob("*.txt"))}


def _text(rows: Sequence[_Row], file: _Text | None, expected: str, notes: list[str]) -> str:
    """The prompt file's text, which images are drawn from, or else the CSV's."""
    first = next((row for row in rows if row.text), rows[0])
    if other := next((row for row in rows if row.text not in ("", first.text)), None):
        notes.append(f"{other.where}: text of {other.item} differs from {first.where}, which counts")
    if expected and not (file and file.text):
        notes.append(f"{expected}: {'empty' if file else 'missing'}; the text of {first.where} counts")
    if file and file.text:
        if not first.text:
            notes.append(f"{first.where}: no text of {first.item}; that of {file.where} counts")
        elif file.text != first.text:
            notes.append(f"{first.where}: text differs from {file.where}, which counts")
        return file.text
    if not first.text:
        raise BadInput(
            f"{first.where}: no text of {first.item}, neither here nor in {TEXTS}/{first.item}.txt"
        )
    return first.text


def _unique(rows: Sequence[_Row], notes: list[str]) -> list[_Row]:
    """Rows by proposition id; of two the later counts, in the earlier's place, as in the script."""
    kept: dict[int, _Row] = {}
    for row in rows:
        if before := kept.get(row.question.id):
            notes.append(
                f"{row.where}: proposition_id {row.question.id} of {row.item} once more after "
                f"{before.where}; this row counts, as in the official script"
            )
        kept[row.question.id] = row
    return list(kept.values())


def _check_graph(rows: Sequence[_Row], notes: list[str]) -> None:
    above = ancestors([row.question for row in rows])
    notes += [
        f"{row.where}: dependency {parent} of {row.item} is no question of it: `corrected` ignores it, "
        "the official script drops the prompt where it looks it up"
        for row in rows
        for parent in row.question.parents
        if parent not in above
    ]
    circle = [row for row in rows if row.question.id in above[row.question.id]]
    if circle:
        ids = ", ".join(str(row.question.id) for row in circle)
        notes.append(
            f"{circle[0].where}: dependencies of {circle[0].item} go in a circle ({ids}): `corrected` "
            "counts questions of a circle only where all of it are answered yes"
        )


def _check_categories(rows: Sequence[_Row], notes: list[str]) -> None:
    """Each unknown category and each disagreement of columns and `tuple` once, with its first row."""
    found: dict[str, list[str]] = {}
    for row in rows:
        asked = row.question
        if asked.detail not in CATEGORIES.get(asked.category, ()):
            found.setdefault(f"unknown category {label(asked)!r}", []).append(row.where)
        if l2(asked) != label(asked):
            fault = f"tuple says {l2(asked)!r}, the columns {label(asked)!r}: `reference` counts by the "
            found.setdefault(fault + "former, `corrected` by the latter", []).append(row.where)
    notes += [f"{where[0]}: {fault} ({len(where)} rows)" for fault, where in found.items()]
