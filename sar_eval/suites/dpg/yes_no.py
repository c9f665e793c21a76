"""Parse yes-or-no answers, by DPG's exact rule or by one for chat models, and build question prompts.

DPG's script (`dpg_bench/compute_dpg_bench.py` of ELLA) counts only the exact text `yes`. A chat model
writes sentences, so the answers inside a sentence are read; a text with none, or with both, is no answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from sar_eval.answers import Asked, Listed
from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.types import Answer

# Names of the parsing rules; part of the version of every answerer that uses them.
EXACT_RULE = "exact-1"
CHAT_RULE = "chat-1"
WORD_RULE = "word-1"
DEFAULT_TEMPLATE = "{question} Answer with yes or no."
MAX_QUOTED = 120  # characters of an answer that an error message quotes
MAX_ANSWER = 200_000  # characters, those of a `<think>` part included; no model says so much for a yes

_FILLER = r"(?:(?:so|well|actually|wait|then|thus|therefore|hence|oh|ok|okay)\s+)*"
_ALONE = re.compile(rf"{_FILLER}(yes|no)")
_OPENING = re.compile(rf"{_FILLER}(yes|no)\s(?!(?:doubt|idea|clue|way|question|problem)\b)")
_STATED = re.compile(r"\b(?:answer|say)\b(?: \w+){0,6}? (yes|no)$")
_DENIED = re.compile(r"\b(?:not|never|cannot)\b|n't\b")
_BOTH = re.compile(r"\b(?:yes\s*(?:/|or|and)\s*no|no\s*(?:/|or|and)\s*yes)\b")
_BREAK = re.compile(r"[^\w\s']+|\n|\b(?:and|or|but)\b")


def read_exact(text: str) -> bool:
    """Whether the text is exactly `yes`."""
    return text == "yes"


def read_chat(text: str) -> bool | None:
    """The yes or no in a chat model's text; None if there is neither, or both.

    Markdown, code fences, a `<think>` part and letter case are ignored. Of `{"answer": ...}` only the
    value counts. Otherwise a clause answers if it is yes or no alone ("Yes, there are"), begins the text
    ("No dog is visible") or states it ("the answer is yes"); all answers in a text must agree.
    """
    claims = set(_claims(text))
    return claims == {"yes"} if len(claims) == 1 else None


def chat_answer(text: str, soft: float | None = None) -> Answer:
    """A chat model's text as an answer; a text that is neither yes nor no becomes an error quoting it.

    So does one of more than `MAX_ANSWER` characters, without being read.
    """
    if len(text) > MAX_ANSWER:
        return Answer(
            error=f"the answer has {len(text):,} characters, of which at most {MAX_ANSWER:,} are read"
        )
    yes = read_chat(text)
    quoted = text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."
    return Answer(text, yes, soft, error=f"neither yes nor no: {quoted!r}" if yes is None else None)


def word_answer(text: str, soft: float | None = None, truncated: bool = False) -> Answer:
    """The answer of a VQA network with a fixed or short vocabulary: anything but yes is a no, as in DPG.

    Such a network may answer "two" or "maybe" where no is expected; that is an answer, not an error.
    """
    return Answer(text, read_chat(text) is True, soft, truncated)


def listed_answer(text: str, first: str, asked: Asked, listed: Listed) -> Answer:
    """The answer to a question that lists its answers: any text is one.

    It counts as yes if the likeliest first token, in lower case, is a spelling of the expected answer, as
    in GenEval 2's script.
    """
    return Answer(text, first.lower() in asked.expect, listed=listed)


def soft_score(yes: float, no: float) -> float | None:
    """p(yes) / (p(yes) + p(no)), rounded to 6 digits; None if both are 0."""
    return round(yes / (yes + no), 6) if yes + no > 0 else None


def check_template(template: object, what: str) -> None:
    """Raise BadInput unless the template is a text that contains `{question}`."""
    if not isinstance(template, str) or "{question}" not in template:
        raise BadInput(f"prompt {template!r} of {what}: must be a text with {{question}} in it")


def fill_template(template: str, question: str) -> str:
    """The prompt that asks this question."""
    return template.replace("{question}", question)


def template_digest(template: str) -> str:
    """The template's SHA-256, 8 hex digits."""
    return hashlib.sha256(template.encode()).hexdigest()[:8]


def _claims(text: str) -> Iterator[str]:
    """Every yes and no in the text that states an answer."""
    plain = _plain(text)
    if (answer := _json_answer(plain)) is not None:
        yield from _claims(answer)
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
        # After the first clause, "and no cats" is no answer, but "but yes, in a way" is.
        if (opening := _OPENING.match(clause)) and (number == 0 or opening[1] == "yes"):
            yield opening[1]


def _plain(text: str) -> str:
    """The text in lower case, without markup and without a reasoning model's `<think>` part."""
    answer = text.lower().replace("\u2019", "'").rpartition("</think>")[2].partition("<think>")[0]
    return re.sub(r"^```\w*|[*_`#]", " ", answer.strip()).strip()


def _json_answer(plain: str) -> str | None:
    """The value of `{"answer": ...}`; None if the text is no such object, or one that no model writes."""
    if not plain.startswith("{"):
        return None
    try:
        answer = parse_json(plain, "the answer").get("answer")
    except BadInput:
        return None
    return {True: "yes", False: "no"}[answer] if isinstance(answer, bool) else str(answer)
