"""A gate as JUnit XML, the format whose results GitLab, GitHub's actions, Jenkins and others show.

There is no standard; this keeps to what the common schemas (Jenkins', Ant's) share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from sar_eval.comparisons import GateResult, Question
from sar_eval.report.gate_words import answer_words, question_words

NAME = "sar-eval gate"
# What XML 1.0 cannot hold, not even escaped (section 2.2): most control characters, halves of characters.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def gate_as_junit(result: GateResult) -> bytes:
    """One test case for each question; a failure has its answer, with the interval."""
    suite = _suite(f"{NAME}: {_text(result.benchmark)}", len(result.questions), len(result.failures), 0)
    properties = SubElement(suite, "properties")
    for name in ("run", "run_path", "baseline", "baseline_path"):
        SubElement(properties, "property", name=name, value=_text(getattr(result, name)) or "-")
    for question in result.questions:
        _add_case(suite, question, result)
    return _document(suite)


def unanswered_as_junit(why: str) -> bytes:
    """A gate that has no answer: one test case with an error, so that no older result is taken for it."""
    suite = _suite(NAME, 1, 0, 1)
    case = SubElement(suite, "testcase", classname="sar-eval", name="gate", time="0")
    SubElement(case, "error", message=why, type="Unanswered").text = why
    return _document(suite)


def _suite(name: str, tests: int, failures: int, errors: int) -> Element:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")  # the schemas allow no zone
    counts = {"tests": tests, "failures": failures, "errors": errors, "skipped": 0, "time": 0}
    attributes = {key: str(number) for key, number in counts.items()}
    return Element("testsuite", attributes | {"name": name, "timestamp": now, "hostname": "localhost"})


def _add_case(suite: Element, question: Question, result: GateResult) -> None:
    name = f"{question.measure} ({'floor' if question.asked == 'floor' else 'against the baseline'})"
    case = SubElement(suite, "testcase", classname=_class(result.benchmark), name=_text(name), time="0")
    asked, answer = _text(question_words(question, result.run)), _text(answer_words(question))
    if not question.passed:
        SubElement(case, "failure", message=answer, type="GateFailed").text = _lines(
            asked, answer, result.notes
        )
    SubElement(case, "system-out").text = _lines(asked, answer, result.notes)


def _class(benchmark: str) -> str:
    """What viewers group by: they take a dot for a level."""
    return f"sar-eval.{_text(benchmark).replace('.', '_')}"


def _lines(asked: str, answer: str, notes: Sequence[str]) -> str:
    return "\n".join([asked, answer, *(f"note: {_text(note)}" for note in notes)])


def _document(suite: Element) -> bytes:
    counts = {key: suite.get(key, "0") for key in ("tests", "failures", "errors", "time")}
    root = Element("testsuites", counts | {"name": NAME})
    root.append(suite)
    indent(root)
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _text(text: str) -> str:
    """The text without what XML cannot hold; markup is escaped on writing."""
    return _NOT_XML.sub("", text)
