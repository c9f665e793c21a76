"""A gate as JUnit XML, the format whose results GitLab, Jenkins and actions of GitHub show.

There is no standard. This is valid by the two schemas in use, Ant's (windyroad/JUnit-Schema) and Jenkins'
(xunit-plugin, junit-10.xsd): Ant's wants more attributes and an order, Jenkins' fewer children.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from sar_eval.comparisons import GateResult, Question
from sar_eval.report.gate_words import answer_words, question_words

NAME = "sar-eval gate"
# What XML 1.0 cannot hold, not even escaped (section 2.2): most control characters, halves of characters.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def gate_as_junit(result: GateResult) -> bytes:
    """One test case for each question; a failure has its answer, with the interval."""
    name = f"{NAME}: {_text(result.benchmark)}"
    suite = _suite(name, len(result.questions), failures=len(result.failures))
    properties = SubElement(suite, "properties")
    for key in ("run", "run_path", "baseline", "baseline_path"):
        SubElement(properties, "property", name=key, value=_text(getattr(result, key)))
    for question in result.questions:
        _add_case(suite, question, result)
    answers = [_answer(question, result) for question in result.questions]
    return _document(suite, "\n".join([*answers, *_notes(result)]))


def unanswered_as_junit(why: str) -> bytes:
    """A gate that has no answer: one test case with an error, so that no older result is taken for it."""
    suite = _suite(NAME, 1, errors=1)
    SubElement(suite, "properties")
    case = SubElement(suite, "testcase", classname="sar-eval", name="gate", time="0")
    SubElement(case, "error", message=why, type="Unanswered").text = why
    return _document(suite, why)


def _suite(name: str, tests: int, failures: int = 0, errors: int = 0) -> Element:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")  # the schemas allow no zone
    counts = {"tests": tests, "failures": failures, "errors": errors, "skipped": 0, "time": 0, "id": 0}
    attributes = {key: str(number) for key, number in counts.items()}
    names = {"name": name, "package": NAME, "timestamp": now, "hostname": "localhost"}
    return Element("testsuite", names | attributes)


def _add_case(suite: Element, question: Question, result: GateResult) -> None:
    # What viewers group by; they take a dot for a level.
    group = f"{NAME}.{_text(result.benchmark).replace('.', '_')}"
    kind = "floor" if question.asked == "floor" else "against the baseline"
    name = f"{_text(question.measure)} ({kind})"
    case = SubElement(suite, "testcase", classname=group, name=name, time="0")
    if not question.passed:
        message = _text(answer_words(question))
        text = "\n".join([_answer(question, result), *_notes(result)])
        SubElement(case, "failure", message=message, type="GateFailed").text = text


def _answer(question: Question, result: GateResult) -> str:
    return _text(f"{question_words(question, result.run)}\n{answer_words(question)}")


def _notes(result: GateResult) -> list[str]:
    return [f"note: {_text(note)}" for note in result.notes]


def _document(suite: Element, output: str) -> bytes:
    SubElement(suite, "system-out").text = output
    SubElement(suite, "system-err")
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _text(text: str) -> str:
    """The text without what XML cannot hold; markup is escaped on writing."""
    return _NOT_XML.sub("", text)
