"""Import DSG-1k's official table as a prompt suite, reporting every inconsistency.

`dsg/data/dsg-1k-anns.csv` of https://github.com/j-min/DSG (Apache-2.0) has DPG-Bench's columns: one row for
each question. A prompt's `checks` are its questions, and `dependencies_forgotten` where the official script
reads none of its dependencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sar_eval.documents import MAX_DIGITS, shorten
from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import write_questions
from sar_eval.suites.dpg.scoring import ancestors
from sar_eval.suites.dpg.suite import Row, check_ids, last_by_id, read_questions_table
from sar_eval.suites.dsg.scoring import UNREAD, category_of
from sar_eval.suites.source import ImportedSuite, official_file
from sar_eval.types import Json, Prompt, safe_id

TABLE = "dsg-1k-anns.csv"
OFFICIAL_PROMPTS = 1060


def import_suite(source: Path) -> ImportedSuite:
    """Prompts and questions of the official CSV, or of the folder that it lies in.

    Prompts are in the order of their first rows, questions in row order.

    Raises:
        BadInput: with file and line: no CSV, a missing column, broken CSV, ids that differ in case only, an
            invalid number, a row without a question, or a prompt without a text.
    """
    table = official_file(source, TABLE)
    notes: list[str] = []
    dependencies = _Dependencies(notes)
    items: dict[str, list[Row]] = {}
    for row in read_questions_table(table, notes, dependencies.read):
        items.setdefault(row.item, []).append(row)
    check_ids(items, table, notes)
    prompts, questions = [], 0
    for item, rows in items.items():
        kept = last_by_id(rows, notes)
        _check_graph(kept, notes)
        questions += len(kept)
        checks: dict[str, Json] = write_questions([row.question for row in kept])
        if any(row.where in dependencies.odd for row in rows):
            checks[UNREAD] = True
        if not (category := category_of(item)):
            notes.append(f"{rows[0].where}: {item} is of no category of DSG: it counts in `overall` alone")
        prompts.append(Prompt(safe_id(item), _text(rows, notes), category, checks))
    return ImportedSuite(tuple(prompts), tuple(notes), f"with {questions:,} questions")


class _Dependencies:
    """Reads cells of dependencies, and keeps where one is not only of whole numbers."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self.odd: set[str] = set()

    def read(self, cell: str, where: str) -> list[int]:
        """The whole numbers in a cell."""
        parts = cell.split(",") if cell else []
        found = [int(part) for part in parts if _is_whole(part)]
        if len(found) < len(parts):
            self.odd.add(where)
            self.notes.append(
                f"{where}: dependency {shorten(cell)} has more than whole numbers: the official script "
                "forgets all dependencies of the item, ours takes the numbers"
            )
        return found


def _is_whole(part: str) -> bool:
    """Whether Python's `int` reads it, as the official script does."""
    try:
        int(part)
    except ValueError:
        return False
    return len(part.strip()) <= MAX_DIGITS


def _text(rows: Sequence[Row], notes: list[str]) -> str:
    first = next((row for row in rows if row.text), rows[0])
    if not first.text:
        raise BadInput(f"{first.where}: no text of {first.item}")
    if other := next((row for row in rows if row.text not in ("", first.text)), None):
        notes.append(f"{other.where}: text of {other.item} differs from {first.where}, which counts")
    return first.text


def _check_graph(rows: Sequence[Row], notes: list[str]) -> None:
    """Note parents that do not exist, and cycles longer than a question that names itself."""
    known = {row.question.id for row in rows}
    notes += [
        f"{row.where}: dependency {parent} of {row.item} does not exist: ours ignores it, the official "
        "script stops there"
        for row in rows
        for parent in row.question.parents
        if parent not in known
    ]
    ancestors_of = ancestors([row.question for row in rows])
    cycle = [r for r in rows if r.question.id in ancestors_of[r.question.id] - set(r.question.parents)]
    if cycle:
        ids = ", ".join(str(row.question.id) for row in cycle)
        notes.append(
            f"{cycle[0].where}: dependencies of {cycle[0].item} form a cycle ({ids}): ours counts the "
            "questions of a cycle only if all of them are answered yes"
        )
