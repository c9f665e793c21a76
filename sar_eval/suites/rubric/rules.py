"""How a rubric's replies become values and a score: made from the options of a recipe.

A rule has `check(prompt)`, which refuses prompts that it cannot score; `read(reply, prompt)`, which gives
the values that are stored as evidence or raises `UnreadReply`; and `score(values, prompt)`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Protocol, cast, get_args

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.options import check_names
from sar_eval.suites.rubric.readers import (
    Take,
    UnreadReply,
    compile_pattern,
    read_list,
    read_numbers,
    read_text,
    read_yes_no,
)
from sar_eval.suites.rubric.template import expected_count
from sar_eval.types import Json, Prompt

Values = Mapping[str, Json]
# The options of each reader, beside `reader` itself.
OF_READER = {
    "numbers": ("numbers", "take", "bare", "range", "score", "weights", "divisor"),
    "yes_no": ("items", "against"),
    "list": ("items", "tag", "range", "divisor"),
    "text": ("drop", "against"),
}
OPTIONS = ("reader", *dict.fromkeys(name for names in OF_READER.values() for name in names))


class Rule(Protocol):
    """Reads replies; see the module."""

    def check(self, prompt: Prompt) -> None:
        """Raise BadInput if the prompt's checks lack what the rule needs: before anything is asked."""
        ...

    def read(self, reply: str, prompt: Prompt) -> Values:
        """The values in a reply about a picture of this prompt, or `UnreadReply`."""
        ...

    def score(self, values: Values, prompt: Prompt) -> float:
        """The verdict's score of these values."""
        ...


@dataclass(frozen=True, slots=True)
class Numbers:
    """Named numbers; the score is their weighted sum, divided.

    Attributes:
        patterns, take, bare: see `read_numbers`.
        limits: least and greatest value of every number; others are unread.
        weights: of the numbers in the score.
        divisor: of the weighted sum.
    """

    patterns: Mapping[str, re.Pattern[str]]
    weights: Mapping[str, float]
    divisor: float = 1.0
    take: Take = "same"
    bare: re.Pattern[str] | None = None
    limits: tuple[float, float] | None = None

    def check(self, prompt: Prompt) -> None:
        """Any prompt will do."""

    def read(self, reply: str, prompt: Prompt) -> Values:
        """A number for each name."""
        del prompt
        values = read_numbers(reply, self.patterns, self.take, self.bare)
        for name, value in values.items():
            _check_limits(name, value, self.limits)
        return values

    def score(self, values: Values, prompt: Prompt) -> float:
        """The weighted sum, divided."""
        del prompt
        return fsum(weight * values[name] for name, weight in self.weights.items()) / self.divisor


@dataclass(frozen=True, slots=True)
class YesNo:
    """`answers`, one for each item of the prompt's checks `items`; the score is the share of yes.

    Attributes:
        items: key of the prompt's checks with the questions.
        against: key of those with the wanted answers (`yes` or `no`), of which the score is the share that
            was given; "" if every answer should be yes.
    """

    items: str = "questions"
    against: str = ""

    def check(self, prompt: Prompt) -> None:
        """There must be questions, and wanted answers if the score needs them."""
        expected_count(prompt, self.items)
        if self.against:
            _wanted_answers(prompt, self.against)

    def read(self, reply: str, prompt: Prompt) -> Values:
        """`answers`: true for yes."""
        return {"answers": read_yes_no(reply, expected_count(prompt, self.items))}

    def score(self, values: Values, prompt: Prompt) -> float:
        """The share of the answers that are as wanted; those for which nothing is wanted do not count."""
        answers: list[bool] = values["answers"]
        wanted = _wanted_answers(prompt, self.against) if self.against else [True] * len(answers)
        given = list(zip(answers, wanted, strict=False))
        return sum(answer == want for answer, want in given) / len(given)


@dataclass(frozen=True, slots=True)
class Scores:
    """`scores`, one for each item of the prompt's checks `items`; the score is their mean, divided."""

    items: str = "questions"
    tag: str = "score"
    divisor: float = 1.0
    limits: tuple[float, float] | None = None

    def check(self, prompt: Prompt) -> None:
        """There must be items to score."""
        expected_count(prompt, self.items)

    def read(self, reply: str, prompt: Prompt) -> Values:
        """`scores`: numbers."""
        values = read_list(reply, expected_count(prompt, self.items), self.tag)
        for value in values:
            _check_limits("a score", value, self.limits)
        return {"scores": values}

    def score(self, values: Values, prompt: Prompt) -> float:
        """The mean, divided."""
        del prompt
        return fsum(values["scores"]) / len(values["scores"]) / self.divisor


@dataclass(frozen=True, slots=True)
class Text:
    """`text`, as the model read it off the picture; the score is the share of the wanted words in it.

    Attributes:
        against: key of the prompt's checks with the wanted text (or a list of texts).
        drop: phrases that say that there is nothing; see `read_text`.
    """

    against: str
    drop: Sequence[str] = ()

    def check(self, prompt: Prompt) -> None:
        """There must be a wanted text."""
        _wanted(prompt, self.against)

    def read(self, reply: str, prompt: Prompt) -> Values:
        """`text`, stripped."""
        del prompt
        return {"text": read_text(reply, self.drop)}

    def score(self, values: Values, prompt: Prompt) -> float:
        """The share of the wanted words."""
        return share_of_words(_wanted(prompt, self.against), values["text"])


def make_rule(options: Mapping[str, Json], label: str) -> Rule:
    """The rule that a judge's options describe.

    Raises:
        BadInput: naming `label` and the option: unknown, missing, of another reader, or out of range.
    """
    reader = options.get("reader", "numbers")
    if not isinstance(reader, str) or reader not in OF_READER:
        raise BadInput(f"reader {shorten(reader)} of {label}: {', '.join(OF_READER)}")
    given = {name: value for name, value in options.items() if name != "reader"}
    check_names(given, OF_READER[reader], f"{label} with reader {reader!r}")
    makers: dict[str, Callable[[Mapping[str, Json], str], Rule]] = {
        "numbers": _numbers,
        "yes_no": _yes_no,
        "list": _scores,
        "text": _text,
    }
    return makers[reader](given, label)


def share_of_words(wanted: str, text: str) -> float:
    """The share of the wanted words that are in the text, each as often as it is wanted there.

    Case and punctuation do not matter; a Chinese character is a word.
    """
    words = _words(wanted)
    return (words & _words(text)).total() / words.total() if words else 0.0


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+", text.casefold()))


def _wanted_answers(prompt: Prompt, key: str) -> list[bool]:
    checks = prompt.checks if isinstance(prompt.checks, Mapping) else {}
    wanted = checks.get(key)
    words = [str(word).strip().lower() for word in wanted] if isinstance(wanted, list) else []
    if not words or not {"yes", "no"}.issuperset(words):
        raise BadInput(f"prompt {prompt.id!r}: its checks have no list {key!r} of yes and no")
    return [word == "yes" for word in words]


def _wanted(prompt: Prompt, key: str) -> str:
    checks = prompt.checks if isinstance(prompt.checks, Mapping) else {}
    wanted = checks.get(key)
    texts = wanted if isinstance(wanted, list) else [wanted]
    joined = " ".join(text for text in texts if isinstance(text, str))
    if not _words(joined):
        raise BadInput(f"prompt {prompt.id!r}: its checks have no text {key!r} with words in it")
    return joined


def _check_limits(name: str, value: float, limits: tuple[float, float] | None) -> None:
    if limits and not limits[0] <= value <= limits[1]:
        raise UnreadReply(f"{name} is {value:g}, which is not in {limits[0]:g} to {limits[1]:g}")


def _numbers(options: Mapping[str, Json], label: str) -> Numbers:
    table = options.get("numbers")
    if not isinstance(table, Mapping) or not table:
        raise BadInput(f"{label} needs numbers: a table of names and regular expressions")
    patterns = {
        name: compile_pattern(pattern, f"numbers.{name} of {label}") for name, pattern in table.items()
    }
    bare = options.get("bare")
    take = options.get("take", "same")
    if take not in get_args(Take):
        raise BadInput(f"take {shorten(take)} of {label}: {', '.join(get_args(Take))}")
    return Numbers(
        patterns,
        _weights(options, list(patterns), label),
        _divisor(options, label),
        cast(Take, take),
        None if bare is None else compile_pattern(bare, f"bare of {label}"),
        _limits(options, label),
    )


def _weights(options: Mapping[str, Json], names: Sequence[str], label: str) -> dict[str, float]:
    """Of `weights`, or 1 for the number `score` (the first one by default)."""
    if "weights" not in options:
        name = options.get("score", names[0])
        if name not in names:
            raise BadInput(f"score {shorten(name)} of {label}: {', '.join(names)}")
        return {name: 1.0}
    weights = options["weights"]
    if "score" in options or not isinstance(weights, Mapping) or not weights:
        raise BadInput(f"{label}: either score or a table of weights says what the verdict's score is")
    if unknown := sorted(set(weights) - set(names)):
        raise BadInput(f"weights.{unknown[0]} of {label}: the numbers are {', '.join(names)}")
    return {name: _finite(f"weights.{name}", weight, label) for name, weight in weights.items()}


def _divisor(options: Mapping[str, Json], label: str) -> float:
    divisor = _finite("divisor", options.get("divisor", 1.0), label)
    if divisor <= 0:
        raise BadInput(f"divisor {divisor:g} of {label}: a number above 0")
    return divisor


def _limits(options: Mapping[str, Json], label: str) -> tuple[float, float] | None:
    limits = options.get("range")
    if limits is None:
        return None
    if not isinstance(limits, list) or len(limits) != 2:
        raise BadInput(f"range {shorten(limits)} of {label}: a list of two numbers, [LEAST, GREATEST]")
    low, high = (_finite("range", limit, label) for limit in limits)
    if low >= high:
        raise BadInput(f"range {shorten(limits)} of {label}: the least value comes first")
    return low, high


def _finite(name: str, value: Json, label: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise BadInput(f"{name} {shorten(value)} of {label}: a number")
    return float(value)


def _yes_no(options: Mapping[str, Json], label: str) -> YesNo:
    against = _key("against", options["against"], label) if "against" in options else ""
    return YesNo(_key("items", options.get("items", "questions"), label), against)


def _scores(options: Mapping[str, Json], label: str) -> Scores:
    return Scores(
        _key("items", options.get("items", "questions"), label),
        _key("tag", options.get("tag", "score"), label),
        _divisor(options, label),
        _limits(options, label),
    )


def _text(options: Mapping[str, Json], label: str) -> Text:
    drop = options.get("drop", [])
    if not isinstance(drop, list) or not all(isinstance(phrase, str) and phrase for phrase in drop):
        raise BadInput(f"drop {shorten(drop)} of {label}: a list of texts")
    return Text(_key("against", options.get("against"), label), tuple(drop))


def _key(name: str, value: Json, label: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_]\w*", value):
        raise BadInput(f"{name} {shorten(value)} of {label}: a name of letters, digits and _")
    return value
