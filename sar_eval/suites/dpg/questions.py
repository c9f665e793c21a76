"""The question graph of a DPG prompt, as stored in a suite's `checks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sar_eval.errors import BadInput
from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class Question:
    """One node of a prompt's question graph.

    Attributes:
        id: `proposition_id`, unique in the prompt.
        text: what is asked (`question_natural_language`).
        parents: ids of the questions that must be answered yes for this one to count (`dependency`
            without 0), in file order.
        category: `category_broad`, DPG's L1 ("entity", "attribute", "relation", "global", "other").
        detail: `category_detailed`, DPG's L2 ("whole", "color", ...; "" for none).
        statement: `tuple`, what the question asks about.
    """

    id: int
    text: str
    parents: tuple[int, ...] = ()
    category: str = ""
    detail: str = ""
    statement: str = ""

    def to_json(self) -> dict[str, Json]:
        """The question as the suite file stores it."""
        return {**asdict(self), "parents": list(self.parents)}


def write_questions(questions: Sequence[Question]) -> dict[str, Json]:
    """A prompt's `checks` with these questions, in this order."""
    return {"questions": [question.to_json() for question in questions]}


def read_questions(checks: Json, where: str = "checks") -> tuple[Question, ...]:
    """The questions in a prompt's `checks`, in file order; `where` locates them in error messages.

    Raises:
        BadInput: there are none, one lacks an id or a text, or a field has the wrong type.
    """
    rows = checks.get("questions") if isinstance(checks, dict) else None
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{where}: no list `questions`")
    return tuple(_question(row, f"{where}: questions[{number}]") for number, row in enumerate(rows))


def _question(row: Any, where: str) -> Question:
    if not isinstance(row, dict):
        raise BadInput(f"{where} must be an object with id and text, not {row!r}")
    parents = row.get("parents", [])
    whole = isinstance(parents, list) and all(_is_whole(parent) for parent in parents)
    if not _is_whole(row.get("id")) or not whole:
        raise BadInput(f"{where}: id and parents must be whole numbers")
    texts = {name: row.get(name, "") for name in ("text", "category", "detail", "statement")}
    if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
        raise BadInput(f"{where}: {wrong[0]} must be text")
    if not texts["text"].strip():
        raise BadInput(f"{where} has no text")
    return Question(row["id"], parents=tuple(parents), **texts)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
