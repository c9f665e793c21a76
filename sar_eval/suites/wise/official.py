"""WISE's figures as its scripts make them: what they read in a reply, leave out, and refuse.

Reimplemented from the behaviour of `vllm_eval.py`, `calculate_verified.py`, `WISE_legacy/gpt_eval.py` and
`WISE_legacy/Calculate.py` in https://github.com/PKU-YuanGroup/WISE (commit eb51174). docs/rubric.md lists
their quirks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from sar_eval.documents import parse_json
from sar_eval.errors import BadInput
from sar_eval.types import Json

Scores = Mapping[str, float]
PROMPTS = 1000
# `--category` of the calculators, and the categories that each one's file holds.
FILES = {
    "culture": ("CULTURE",),
    "space-time": ("TIME", "SPACE"),
    "science": ("BIOLOGY", "PHYSICS", "CHEMISTRY"),
}
# The class that is meant for the wide colon, too, holds the ASCII colon twice. Possessive repeats find the
# same, in a time that is linear in the reply's length.
_SCORE = re.compile(r"score\*{0,2}+\s*+:?\s*+([01])\b", re.IGNORECASE)
_ASPECT = re.compile(r"(consistency|realism|aesthetic quality)\*{0,2}+\s*+:?\s*+(\d)", re.IGNORECASE)
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
ASPECTS = ("consistency", "realism", "aesthetic_quality")


@dataclass(frozen=True, slots=True)
class Form:
    """One of the two forms of the benchmark.

    Attributes:
        last_ids: the last id of each category's prompts, which follow each other from 1.
        shares: weight of each category in the overall figure.
        keys: of a reply's scores.
        weights: of these in a picture's sample, divided by `divisor`.
        read: the scores in a reply; some or all are missing if it is unreadable.
        values: the only ones that the calculator takes for a score; empty: any number is one.
    """

    last_ids: Mapping[str, int]
    shares: Mapping[str, float]
    keys: tuple[str, ...]
    weights: tuple[float, ...]
    divisor: float
    read: Callable[[str], Scores]
    values: tuple[float, ...] = ()

    def category(self, number: int) -> str | None:
        """The category of a prompt by its id, None if there is no such prompt."""
        found = (name for name, last in self.last_ids.items() if number <= last)
        return next(found, None) if number >= 1 else None

    def sample(self, scores: Scores) -> float:
        """A picture's sample, 0 to 1 (more if a score is out of range)."""
        parts = zip(self.keys, self.weights, strict=True)
        return sum(weight * scores[key] for key, weight in parts) / self.divisor

    def is_usable(self, row: Mapping[str, Json]) -> bool:
        """Whether a line has all scores."""
        scores = [row.get(key) for key in self.keys]
        numbers = all(isinstance(score, int | float) for score in scores)
        return numbers and (not self.values or all(score in self.values for score in scores))

    def ids(self, file: str) -> range:
        """The ids of the prompts in a category's file."""
        names = list(self.last_ids)
        first = names.index(FILES[file][0])
        before = self.last_ids[names[first - 1]] if first else 0
        return range(before + 1, self.last_ids[FILES[file][-1]] + 1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What the calculator prints, or why it prints nothing.

    Attributes:
        categories: mean and number of samples of each category that has one.
        overall: None if it was not asked for, or refused.
        missing: ids for which the figures are refused.
    """

    categories: Mapping[str, tuple[float, int]]
    overall: float | None = None
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """What a calculator reads from its files.

    Attributes:
        samples: id and sample of each line with usable scores; repeated ids count each time.
        present: ids of all lines, with usable scores or not.
        dropped_files: files that are lost as a whole.
    """

    samples: Sequence[tuple[int, float]]
    present: frozenset[int]
    dropped_files: int = 0


def read_verified(reply: str) -> dict[str, float]:
    """The `score` in a reply: the first that is named, else the only line that is nothing but one."""
    thought, closed, rest = reply.rpartition("</think>")
    text = (_THINKING.sub("", thought + closed).replace("</think>", "") + rest).strip()
    if found := _SCORE.search(text):
        return {"score": float(found[1])}
    lines = [line.strip() for line in text.splitlines() if line.strip() in ("0", "1")]
    return {"score": float(lines[0])} if len(lines) == 1 else {}


def read_legacy(reply: str) -> dict[str, float]:
    """The three aspects in a reply, of each the last; else the first three lines that are 0, 1 or 2."""
    found = {key.lower().replace(" ", "_"): float(digit) for key, digit in _ASPECT.findall(reply)}
    if found:
        return found
    lines = [line.strip() for line in reply.splitlines() if re.fullmatch(r"\s*[0-2]\s*", line)]
    return dict(zip(ASPECTS, map(float, lines[:3]), strict=True)) if len(lines) >= 3 else {}


VERIFIED = Form(
    {"CULTURE": 400, "TIME": 520, "SPACE": 640, "BIOLOGY": 760, "PHYSICS": 880, "CHEMISTRY": 1000},
    {"CULTURE": 0.4, "TIME": 0.12, "SPACE": 0.12, "BIOLOGY": 0.12, "PHYSICS": 0.12, "CHEMISTRY": 0.12},
    ("score",),
    (1.0,),
    1.0,
    read_verified,
    (0, 1),
)
LEGACY = Form(
    {"CULTURE": 400, "TIME": 567, "SPACE": 700, "BIOLOGY": 800, "PHYSICS": 900, "CHEMISTRY": 1000},
    {"CULTURE": 0.4, "TIME": 0.167, "SPACE": 0.133, "BIOLOGY": 0.1, "PHYSICS": 0.1, "CHEMISTRY": 0.1},
    ASPECTS,
    (0.7, 0.2, 0.1),
    2.0,
    read_legacy,
)


def read_tries(form: Form, replies: Iterable[str | None]) -> Scores | None:
    """The scores of the first try that the official script reads; None if it reads none."""
    for reply in replies:
        if reply is not None and not set(form.keys) - set(scores := form.read(reply)):
            return scores
    return None


def read_results(form: Form, files: Iterable[Iterable[str]]) -> Results:
    """The lines of result files as the calculators read them.

    An id counts as present before its scores are looked at. A line that is JSON, but no object, loses all
    of its file. `true` is the whole number 1.
    """
    samples: list[tuple[int, float]] = []
    present: set[int] = set()
    dropped = 0
    for file in files:
        rows = [row for line in file if (row := _parsed(line)) is not _NOTHING]
        if not all(isinstance(row, dict) for row in rows):
            dropped += 1
            continue
        for row in rows:
            number = row.get("prompt_id")
            if not isinstance(number, int):
                continue
            present.add(int(number))
            if form.category(number) and form.is_usable(row):
                samples.append((int(number), form.sample(row)))
    return Results(samples, frozenset(present), dropped)


def calculate(form: Form, results: Results, category: str = "all", files: int = 1) -> Figures:
    """Means by category and their weighted sum.

    Args:
        form: of the benchmark.
        results: see `read_results`.
        category: "all", or a key of `FILES`, for which there is no overall figure.
        files: how many were read: with a category, the ids are only looked at if it is one alone.
    """
    wanted = range(1, PROMPTS + 1) if category == "all" else form.ids(category) if files == 1 else ()
    if missing := tuple(number for number in wanted if number not in results.present):
        return Figures({}, None, missing)
    by_category: dict[str, list[float]] = {name: [] for name in form.last_ids}
    for number, sample in results.samples:
        if name := form.category(number):
            by_category[name].append(sample)
    means = {name: (fsum(s) / len(s), len(s)) for name, s in by_category.items() if s}
    complete = category == "all" and len(means) == len(by_category)
    overall = sum(form.shares[name] * mean for name, (mean, _) in means.items()) if complete else None
    return Figures(means, overall)


_NOTHING = object()


def _parsed(line: str) -> Json:
    """The JSON of a line, `_NOTHING` for a broken or an empty one."""
    try:
        return parse_json(line, "the line")
    except BadInput:
        return _NOTHING
