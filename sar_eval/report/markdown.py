"""Gates and comparisons as Markdown: for a pull request, a CI job's summary, a lab's wiki."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sar_eval.comparisons import (
    Comparison,
    Difference,
    GateResult,
    Pair,
    Question,
    preference_words,
    sentence,
)
from sar_eval.report.gate_words import (
    answer_words,
    bounds_words,
    limit_words,
    question_words,
    verdict_words,
    written,
)

# Of GitHub's and GitLab's Markdown: code, emphasis, links, tables, mathematics, mentions, references.
_MARKUP = re.compile(r"[\\`*_\[\]|~$#!]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"}  # a mention needs the name next to it
# Control characters, marks of the writing direction, separators of lines, halves of characters.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


def gate_as_markdown(result: GateResult) -> str:
    """Heading, the questions with their answers, and a table."""
    mark = "✅" if result.passed else "❌"
    lines = [f"### {mark} sar-eval {escape(result.benchmark)}: {verdict_words(result)}", ""]
    for question in result.questions:
        asked, answer = question_words(question, result.run), answer_words(question)
        lines.append(f"- {escape(asked)} **{_passed(question)}.** {escape(answer)}")
    header = ("measure", "run", "baseline", "difference", "bounds", "limit", "")
    lines += ["", *_table(header, (_gate_row(question) for question in result.questions)), ""]
    if result.baseline:
        lines.append(f"- A, the baseline: {_named(result.baseline, result.baseline_path)}")
    lines.append(f"- {'B, the run' if result.baseline else 'Run'}: {_named(result.run, result.run_path)}")
    return "\n".join([*lines, *_notes(result.notes)]) + "\n"


def unanswered_as_markdown(why: str) -> str:
    """A gate that has no answer."""
    return f"### ❌ sar-eval gate: no answer\n\n{escape(why)}\n"


def comparison_as_markdown(found: Comparison) -> str:
    """Heading, and the sentence and table of every pair."""
    lines = [f"### sar-eval {escape(found.benchmark)}: comparison", ""]
    for pair in found.pairs:
        lines += [escape(sentence(found, pair)), "", *_pair_table(pair), ""]
        lines += [line for one in pair.preferences for line in (escape(preference_words(pair, one)), "")]
    lines += [f"- {side.letter}: {_named(side.label, side.path)}" for side in found.sides]
    return "\n".join([*lines, *_notes(found.notes)]) + "\n"


def escape(text: str) -> str:
    """Untrusted text on one line, with nothing in it that Markdown acts on."""
    text = re.sub("[&<>@]", lambda found: _ENTITIES[found[0]], _ACTIVE.sub(" ", text))
    text = _MARKUP.sub(r"\\\g<0>", text)
    return re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)", r"\\\g<0>", text)  # no links of bare addresses


def _passed(question: Question) -> str:
    return "pass" if question.passed else "FAIL"


def _named(name: str, path: str) -> str:
    return escape(f"{name} ({path})")


def _notes(notes: Sequence[str]) -> list[str]:
    return [f"- Note: {escape(note)}" for note in notes]


def _gate_row(question: Question) -> tuple[str, ...]:
    return (
        question.measure,
        written(question, question.figure),
        written(question, question.baseline),
        written(question, question.value, "+"),
        bounds_words(question),
        limit_words(question),
        _passed(question),
    )


def _pair_table(pair: Pair) -> Iterator[str]:
    header = ("", pair.first, pair.second, f"{pair.second} - {pair.first}", "95 % interval", "p")
    rows = (_pair_row(row) for row in pair.differences)
    return _table((*header, "won-lost-tied"), rows)


def _pair_row(row: Difference) -> tuple[str, ...]:
    return (
        row.measure,
        row.written(row.first, "-"),
        row.written(row.second, "-"),
        row.written(row.value),
        "-" if row.low is None else f"{row.written(row.low)} to {row.written(row.high)}",
        "<0.001" if row.p_adjusted < 0.001 else f"{row.p_adjusted:.3f}",
        f"{row.won}-{row.lost}-{row.tied}",
    )


def _table(header: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield _row(header)
    yield _row(["---", *["---:"] * (len(header) - 1)])
    yield from (_row([escape(cell) for cell in row]) for row in rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
