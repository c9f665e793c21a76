"""Import DPG-Bench's official files as a prompt suite, reporting every inconsistency.

The folder `dpg_bench` of https://github.com/TencentQQGYLab/ELLA (Apache-2.0) has the prompts in
`prompts/<item id>.txt` and their questions in `dpg_bench.csv`, which repeats the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sar_eval.documents import MAX_DIGITS, shorten
from sar_eval.encodings import read_text
from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.dpg.scoring import ancestors, column_category, l2_category
from sar_eval.suites.source import ImportedSuite
from sar_eval.tables import read_rows
from sar_eval.types import Prompt, safe_id

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
class Row:
    """A row of a table of questions; `where` names file and line."""

    where: str
    item: str
    text: str
    question: Question


@dataclass(frozen=True, slots=True)
class _TextFile:
    where: str
    text: str


def import_suite(source: Path) -> ImportedSuite:
    """Prompts and questions of the official folder, or of its CSV alone.

    Prompts are in the order of their first rows, questions in row order: the official script depends on it.
    Notes report what the official script fails on and which of two versions was taken; see docs/dpg.md.

    Raises:
        BadInput: with file and line: no CSV, a missing column, broken CSV, ids that differ in case only, an
            invalid number, a row without a question, or a prompt without a text.
    """
    table = source / TABLE if source.is_dir() else source
    folder = source / TEXTS if (source / TEXTS).is_dir() else None
    if not table.exists():
        raise BadInput(f"no {table}: give ELLA's folder dpg_bench, or its {TABLE}")
    notes: list[str] = []
    items = _by_item(read_questions_table(table, notes, _parents), notes)
    check_ids(items, table, notes)
    files = _texts(folder, notes) if folder else {}
    prompts, questions = [], 0
    for item, rows in items.items():
        kept = last_by_id(rows, notes)
        _check_graph(kept, notes)
        text = _prompt_text(rows, files.get(item), f"{folder / item}.txt" if folder else "", notes)
        checks = write_questions([row.question for row in kept])
        questions += len(kept)
        prompts.append(Prompt(safe_id(item), text, checks=checks))
    _check_categories([row for rows in items.values() for row in rows], notes)
    notes += [
        f"{files[item].where}: no questions in {table}: left out of the suite"
        for item in files
        if item not in items
    ]
    return ImportedSuite(tuple(prompts), tuple(notes), f"with {questions:,} questions")


def read_questions_table(
    table: Path, notes: list[str], parents_of: Callable[[str, str], Sequence[int]]
) -> list[Row]:
    """The rows of a table in DPG's columns.

    Args:
        table: CSV file.
        notes: to which inconsistencies are added.
        parents_of: the ids in a cell of `dependency`, given the cell and where it is; 0 means none.

    Raises:
        BadInput: with file and line.
    """
    rows = [
        _row(cells, f"{table}:{line}", parents_of)
        for line, cells in read_rows(table, notes=notes, required=COLUMNS)
    ]
    if not rows:
        raise BadInput(f"{table} has no rows")
    return rows


def _row(cells: Mapping[str, str], where: str, parents_of: Callable[[str, str], Sequence[int]]) -> Row:
    values = {name: cells.get(name, "").strip() for name in COLUMNS}
    for name in ("item_id", "question_natural_language"):
        if not values[name]:
            raise BadInput(f"{where}: no {name}")
    question = Question(
        id=_whole_number(values["proposition_id"], "proposition_id", where),
        text=values["question_natural_language"],
        parents=tuple(parent for parent in parents_of(values["dependency"], where) if parent),
        category=values["category_broad"],
        detail=values["category_detailed"],
        statement=values["tuple"],
    )
    if question.id == 0:
        raise BadInput(f"{where}: proposition_id is 0, which as a dependency means none")
    return Row(where, values["item_id"], values["text"], question)


def _parents(cell: str, where: str) -> list[int]:
    return [_whole_number(part, "dependency", where) for part in cell.split(",")]


def _whole_number(cell: str, column: str, where: str) -> int:
    digits = cell.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS):
        raise BadInput(f"{where}: {column} has {shorten(digits)}, which is not a whole number")
    return int(digits)


def _by_item(rows: Sequence[Row], notes: list[str]) -> dict[str, list[Row]]:
    items: dict[str, list[Row]] = {}
    previous = ""
    for row in rows:
        if row.item in items and row.item != previous:
            notes.append(
                f"{row.where}: {row.item} continues after rows of other items: the official script drops "
                "its earlier rows; here they count, in both folds"
            )
        items.setdefault(row.item, []).append(row)
        previous = row.item
    return items


def check_ids(items: Mapping[str, Sequence[Row]], table: Path, notes: list[str]) -> None:
    """Refuse ids that are one file on some systems, and note those that no file can have."""
    ids: dict[str, str] = {}
    for item, rows in items.items():
        if (other := ids.setdefault(safe_id(item).lower(), item)) != item:
            raise BadInput(
                f"{rows[0].where}: item_id {shorten(item)} differs from {shorten(other)} only in case"
            )
    if unsafe := [item for item in items if safe_id(item) != item]:
        first = f"{shorten(unsafe[0])} is {safe_id(unsafe[0])}"
        notes.append(f"{table}: {len(unsafe)} item_ids were rewritten for file names: {first}")


def _texts(folder: Path, notes: list[str]) -> dict[str, _TextFile]:
    files = (path for path in sorted(folder.glob("*.txt")) if not path.name.startswith("."))
    return {path.stem: _TextFile(str(path), read_text(path, notes).strip()) for path in files}


def _prompt_text(rows: Sequence[Row], file: _TextFile | None, expected: str, notes: list[str]) -> str:
    """The text of the prompt file, which images are generated from, or else that of the CSV."""
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


def last_by_id(rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """One row per proposition id: the last one, at the position of the first one, as in the script."""
    by_id: dict[int, Row] = {}
    for row in rows:
        if earlier := by_id.get(row.question.id):
            notes.append(
                f"{row.where}: proposition_id {row.question.id} of {row.item} repeats "
                f"{earlier.where}; this row counts, as in the official script"
            )
        by_id[row.question.id] = row
    return list(by_id.values())


def _check_graph(rows: Sequence[Row], notes: list[str]) -> None:
    ancestors_of = ancestors([row.question for row in rows])
    notes += [
        f"{row.where}: dependency {parent} of {row.item} does not exist: `corrected` ignores it, "
        "the official script drops the prompt when it looks it up"
        for row in rows
        for parent in row.question.parents
        if parent not in ancestors_of
    ]
    cycle = [row for row in rows if row.question.id in ancestors_of[row.question.id]]
    if cycle:
        ids = ", ".join(str(row.question.id) for row in cycle)
        notes.append(
            f"{cycle[0].where}: dependencies of {cycle[0].item} form a cycle ({ids}): `corrected` "
            "counts the questions of a cycle only if all of them are answered yes"
        )


def _check_categories(rows: Sequence[Row], notes: list[str]) -> None:
    """Note each unknown category and each mismatch of columns and `tuple` once, with its first row."""
    problems: dict[str, list[str]] = {}
    for row in rows:
        question, category = row.question, column_category(row.question)
        if question.detail not in CATEGORIES.get(question.category, ()):
            problems.setdefault(f"unknown category {category!r}", []).append(row.where)
        if (in_tuple := l2_category(question)) != category:
            problem = f"tuple says {in_tuple!r}, the columns {category!r}: `reference` counts by the "
            problems.setdefault(problem + "former, `corrected` by the latter", []).append(row.where)
    notes += [f"{where[0]}: {problem} ({len(where)} rows)" for problem, where in problems.items()]
