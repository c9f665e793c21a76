"""The question graph of a DPG prompt, as stored in a suite's `checks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.types import Json

LISTING = ("expect", "against", "is_ratio")  # fields of a question that lists its answers
MAX_SPELLINGS, MAX_SPELLING = 200, 100  # of an answer, and characters of each


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
        expect: spellings of the right answer, where its probability counts in place of a yes.
        against: spellings of the other answers.
        is_ratio: the score is the expected answer's share of all listed ones, as in PairComp, where each
            spelling is a piece of the vocabulary; else it is the probability of the first tokens.
    """

    id: int
    text: str
    parents: tuple[int, ...] = ()
    category: str = ""
    detail: str = ""
    statement: str = ""
    expect: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    is_ratio: bool = False

    def to_json(self) -> dict[str, Json]:
        """The question as the suite file stores it; what only some suites have is not in the others."""
        row = {**asdict(self), "parents": list(self.parents)}
        for name in ("expect", "against"):
            row[name] = list(row[name])
        return {name: value for name, value in row.items() if value or name not in LISTING}


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
    question = Question(row["id"], parents=tuple(parents), **texts)
    return _with_listing(question, row, where) if any(name in row for name in LISTING) else question


def _with_listing(question: Question, row: Any, where: str) -> Question:
    expect, against = (_spellings(row.get(name, []), f"{where}: {name}") for name in ("expect", "against"))
    is_ratio = row.get("is_ratio", False)
    if not isinstance(is_ratio, bool) or (is_ratio and not (expect and against)):
        raise BadInput(f"{where}: is_ratio must be true or false, and needs both expect and against")
    return replace(question, expect=expect, against=against, is_ratio=is_ratio)


def _spellings(value: Any, where: str) -> tuple[str, ...]:
    """Spellings of an answer; each has a word, so that its first token can be told."""
    if not isinstance(value, list) or len(value) > MAX_SPELLINGS:
        raise BadInput(f"{where} must be a list of at most {MAX_SPELLINGS} spellings")
    for text in value:
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_SPELLING:
            raise BadInput(f"{where}: {shorten(text)} is no spelling of an answer")
    return tuple(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
