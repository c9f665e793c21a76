"""Whether words are a yes: DPG's exact rule, and one for chat models; and how questions are put to them.

DPG's script (`dpg_bench/compute_dpg_bench.py` of ELLA) counts an answer that is the text `yes` and
nothing else. A chat model writes sentences, so there the answers inside a sentence are read, and a text
that gives none, or both, is no answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

from sar_eval.errors import BadInput
from sar_eval.types import Answer

EXACT = "exact-1"  # part of the version of who reads answers this way
CHAT = "chat-1"
WORD = "word-1"
TEMPLATE = "{question} Answer with yes or no."
SHOWN = 120  # characters of an answer that an error shows

_FILLER = r"(?:(?:so|well|actually|wait|then|thus|therefore|hence|oh|ok|okay)\s+)*"
_ALONE = re.compile(rf"{_FILLER}(yes|no)")
_OPENING = re.compile(rf"{_FILLER}(yes|no)\s(?!(?:doubt|idea|clue|way|question|problem)\b)")
_STATED = re.compile(r"\b(?:answer|say)\b(?: \w+){0,6}? (yes|no)$")
_DENIED = re.compile(r"\b(?:not|never|cannot)\b|n't\b")
_BOTH = re.compile(r"\b(?:yes\s*(?:/|or|and)\s*no|no\s*(?:/|or|and)\s*yes)\b")
_BREAK = re.compile(r"[^\w\s']+|\n|\b(?:and|or|but)\b")


def read_exact(text: str) -> bool:
    """Whether the text is `yes`, to the letter."""
    return text == "yes"


def read_chat(text: str) -> bool | None:
    """What a chat model's text says, or None if it says neither, or both.

    Markdown, code fences, a `<think>` part and letter case do not matter. `{"answer": ...}` is taken at
    its word. Otherwise a text answers where a clause is yes or no alone ("Yes, there are"), begins the
    text ("No dog is visible") or states it ("the answer is yes"); all answers in a text must agree.
    """
    claims = set(_claims(text))
    return claims == {"yes"} if len(claims) == 1 else None


def chat_answer(text: str, soft: float | None = None) -> Answer:
    """A chat model's text as an answer; one that says neither yes nor no is an error, with the text."""
    yes = read_chat(text)
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return Answer(text, yes, soft, error=f"neither yes nor no: {shown!r}" if yes is None else None)


def word_answer(text: str, soft: float | None = None, truncated: bool = False) -> Answer:
    """A question-answering network's word: whatever is not read as yes is not yes, as DPG has it.

    Such a network answers "two" or "maybe" where it should say no; that is an answer, not a fault.
    """
    return Answer(text, read_chat(text) is True, soft, truncated)


def soft_score(yes: float, no: float) -> float | None:
    """p(yes) / (p(yes) + p(no)), rounded to 6 digits; None if both are 0."""
    return round(yes / (yes + no), 6) if yes + no > 0 else None


def check_template(template: object, what: str) -> None:
    """Raise BadInput unless it is a text with the place of the question in it."""
    if not isinstance(template, str) or "{question}" not in template:
        raise BadInput(f"prompt {template!r} of {what}: a text with {{question}} in it")


def put(template: str, question: str) -> str:
    """The question as it is asked."""
    return template.replace("{question}", question)


def template_digest(template: str) -> str:
    """Eight hex digits that change with the template."""
    return hashlib.sha256(template.encode()).hexdigest()[:8]


def _claims(text: str) -> Iterator[str]:
    """Every yes and no in a text that is meant as an answer."""
    plain = _plain(text)
    if (told := _json_answer(plain)) is not None:
        yield from _claims(told)
        return
    if _BOTH.search(plain):
        yield from ("yes", "no")
    clauses = [" ".join(clause.split()) for clause in _BREAK.split(plain)]
    clauses = [clause for clause in clauses if clause]
    for clause in clauses:
        if alone := _ALONE.fullmatch(clause):
            yield alone[1]
        elif (
            not _DENIED.search(clause) and (stated := _STATED.search(clause)) and not clause[stated.end() :]
        ):
            yield stated[1]
    for number, clause in enumerate(clauses):
        # "and no cats" further on is no answer, "but yes, in a way" is.
        if (opening := _OPENING.match(clause)) and (number == 0 or opening[1] == "yes"):
            yield opening[1]


def _plain(text: str) -> str:
    """Lower case, without markup and without what a reasoning model thinks before it answers."""
    answer = text.lower().replace("\u2019", "'").rpartition("</think>")[2].partition("<think>")[0]
    return re.sub(r"^```\w*|[*_`#]", " ", answer.strip()).strip()


def _json_answer(plain: str) -> str | None:
    try:
        told = json.loads(plain).get("answer")
    except (ValueError, AttributeError):
        return None
    return {True: "yes", False: "no"}[told] if isinstance(told, bool) else str(told)
