"""Read a chat model's reply to a rubric: named numbers, yes or no by question, a list of scores, a text.

Pure functions from a reply to values. A reply that a rule cannot read raises `UnreadReply`, which says
why: it is never a 0. A reply that can be read in two ways is not read.

Python's regular expressions take no time limit, so patterns run over at most `MAX_READ` characters, and
those that repeat a repeated group, whose time can grow exponentially, are refused; `time_limit` ends the
others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from sar_eval.documents import parse_json, shorten
from sar_eval.errors import BadInput
from sar_eval.suites.dpg.yes_no import read_chat
from sar_eval.types import Json

# Names these rules; part of the version of every judge that uses them.
RULES = "rubric-1"
MAX_READ = 20_000  # characters of a reply, without its thinking, that are read
Take = Literal["first", "last", "same"]  # which of several matches counts; `same`: they must agree

_THINKING = re.compile(r"(?is)<think>(?:(?!</?think>).)*</think>")
# A group that ends in an unbounded repeat and is repeated itself; possessive repeats never backtrack.
_NESTED_REPEAT = re.compile(
    r"(?:(?<![*+}\\])|(?<=\\[*+}]))(?:[*+]|\{\d*,\})\??\s*\)"
    r"\s*(?:[*+]|\{\d*,\d*\})(?!\+)"
)
_MARKUP = re.compile(r"[*_`#>]+")
_NUMBERED = re.compile(
    r"(?:[-\u2022]\s*)?(?:(?:no\.|question|answer|q|a)?\s*(\d{1,3})\s*[.):\u3001\uff1a-]?\s*)?"
    r"(?:answer\s*[:\uff1a]\s*)?(yes|no)\b(?!\.?\s*\d)"
    r"(?!\s+(?:problem|doubt|idea|clue|way|question|worries)\b)",
    re.IGNORECASE,
)
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


class UnreadReply(Exception):
    """A reply that a rule cannot read; the message says why, for the picture's error."""


def compile_pattern(pattern: object, where: str) -> re.Pattern[str]:
    """A recipe's regular expression; letters count in either case.

    Raises:
        BadInput: naming `where` (file or judge, and key): no text, broken, or one that may run for ever.
    """
    if not isinstance(pattern, str) or not pattern:
        raise BadInput(f"{where} is {shorten(pattern)}: it must be a regular expression, as text")
    if _NESTED_REPEAT.search(pattern):
        raise BadInput(
            f"{where}: {shorten(pattern)} repeats a group that ends in a repeat, which may take for ever "
            "on some reply: write the group without one, or with a possessive repeat (`++`, `*+`)"
        )
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(f"{where}: {shorten(pattern)} is no regular expression: {error}") from error


def without_thinking(reply: str) -> str:
    """What a reasoning model says after its `<think>` parts, stripped, with `\\n` as line ends.

    Text before a lone `</think>` is thinking, too (the template of the chat opens it), and so is all after
    a `<think>` that is not closed, as in a reply that was cut off.

    Raises:
        UnreadReply: nothing is left, or more than `MAX_READ` characters.
    """
    rest = _THINKING.sub("", reply)
    rest = re.split(r"(?i)</think>", rest)[-1]
    rest = re.split(r"(?i)<think>", rest)[0]
    rest = re.sub(r"\r\n?", "\n", rest).strip()
    if not rest:
        raise UnreadReply("the reply is empty" + (" after its thinking" if reply.strip() else ""))
    if len(rest) > MAX_READ:
        raise UnreadReply(f"the reply has {len(rest):,} characters, of which at most {MAX_READ:,} are read")
    return rest


def read_numbers(
    reply: str,
    patterns: Mapping[str, re.Pattern[str]],
    take: Take = "same",
    bare: re.Pattern[str] | None = None,
) -> dict[str, float]:
    """A number for each name: group 1 of its pattern, or the whole match if it has no group.

    Args:
        reply: of a chat model; its thinking is not read.
        patterns: by the number's name.
        take: which match counts if there are several.
        bare: of a line that is nothing but a number. If no name is found in the whole reply, and as many
            lines are bare as there are names, they are the numbers in the order of the names.

    Raises:
        UnreadReply: a name without a match, or with two numbers (`take="same"`), or one that is none.
    """
    text = without_thinking(reply)
    found = {name: _matches(pattern, text) for name, pattern in patterns.items()}
    if bare is not None and not any(found.values()):
        lines = [line.strip() for line in text.split("\n")]
        numbers = [line for line in lines if bare.fullmatch(line)]
        if len(numbers) == len(patterns):
            found = {name: [number] for name, number in zip(patterns, numbers, strict=True)}
    if missing := [name for name, texts in found.items() if not texts]:
        raise UnreadReply(f"no {missing[0]} in {_quote(text)}")
    return {name: _taken(name, texts, take) for name, texts in found.items()}


def read_yes_no(reply: str, expected: int) -> list[bool]:
    """The answers to `expected` questions that were asked in one request, a line each.

    A line that begins with yes or no, after markup and a number (`2. Yes`, `- no`, `No. 3: yes`), is an
    answer; others are not. If every answer has a number, these say to which question it belongs. A reply
    to one question may be a sentence (`suites.dpg.yes_no.read_chat`).

    Raises:
        UnreadReply: another number of answers, or numbers that are not 1 to `expected`.
    """
    text = without_thinking(reply)
    plain = (_MARKUP.sub("", line).strip() for line in text.split("\n"))
    lines = [found for line in plain if (found := _NUMBERED.match(line))]
    answers = [found[2].lower() == "yes" for found in lines]
    if expected == 1 and not lines and (said := read_chat(text)) is not None:
        return [said]
    if len(answers) != expected:
        raise UnreadReply(f"{len(answers)} answers to {expected} questions in {_quote(text)}")
    numbers = [int(found[1]) for found in lines if found[1]]
    if len(numbers) < expected:
        return answers
    if sorted(numbers) != list(range(1, expected + 1)):
        raise UnreadReply(f"the answers are numbered {shorten(numbers)}, not 1 to {expected}")
    return [answer for _, answer in sorted(zip(numbers, answers, strict=True))]


def read_list(reply: str, expected: int, tag: str = "score") -> list[float]:
    """The numbers of the last `<score>[...]</score>`, in which true and false are 1 and 0.

    The last one counts, as a model may write a draft before.

    Raises:
        UnreadReply: no such list, one of another length, or one that holds anything but numbers.
    """
    text = without_thinking(reply)
    name = re.escape(tag)
    blocks = re.findall(rf"(?is)<{name}>((?:(?!<{name}>).)*?)</{name}>", text)
    if not blocks:
        raise UnreadReply(f"no <{tag}>[...]</{tag}> in {_quote(text)}")
    values = _json_list(blocks[-1].strip())
    if len(values) != expected:
        raise UnreadReply(f"{len(values)} scores for {expected} checks in {_quote(blocks[-1])}")
    return values


def read_text(reply: str, drop: Sequence[str] = ()) -> str:
    """What the model read off a picture, without phrases that say there is nothing ("No text recognized").

    A phrase counts in any case, with or without a full stop behind it. The text may be empty.

    Raises:
        UnreadReply: the reply is empty, or too long.
    """
    text = without_thinking(reply)
    for phrase in drop:
        text = re.sub(rf"(?i){re.escape(phrase)}\.?", " ", text)
    return text.strip()


def _matches(pattern: re.Pattern[str], text: str) -> list[str]:
    group = 1 if pattern.groups else 0
    return [found[group] or "" for found in pattern.finditer(text)]


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnreadReply(f"{name} is {shorten(text)}, which is no number")
    return value


def _taken(name: str, texts: Sequence[str], take: Take) -> float:
    if take != "same":
        return _number(name, texts[0] if take == "first" else texts[-1])
    numbers = list(dict.fromkeys(_number(name, text) for text in texts))
    if len(numbers) > 1:
        told = shorten(", ".join(f"{number:g}" for number in numbers))[1:-1]
        raise UnreadReply(f"{name} is told as {told}: different numbers in one reply")
    return numbers[0]


def _json_list(text: str) -> list[float]:
    """A list of numbers in JSON or in Python's spelling."""
    spelled = re.sub(r"\b(?:True|False|None)\b", lambda word: _PYTHON_WORDS[word[0]], text)
    try:
        values: Json = parse_json(spelled, "the list")
    except BadInput as error:
        raise UnreadReply(f"no list of numbers: {_quote(text)}") from error
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        raise UnreadReply(f"no list of numbers: {_quote(text)}")
    return [float(value) for value in values]


def _quote(text: str) -> str:
    return shorten(text, 120)
