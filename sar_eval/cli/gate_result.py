"""A gate's result where people and CI systems look: terminal, JSON, files, annotations, exit code."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sar_eval.cli import github
from sar_eval.cli.terminal import one_line, say
from sar_eval.errors import BadInput, GateFailed, StorageFailed
from sar_eval.report.gate_words import answer_words, question_words, verdict_words

if TYPE_CHECKING:
    from pathlib import Path

    from sar_eval.cli.gate_options import WhereCiLooks
    from sar_eval.comparisons import GateResult

ANNOTATED = 10  # failures: GitHub shows no more of a step


def tell(result: GateResult, files: WhereCiLooks) -> None:
    """Write what CI systems show: annotations, summary, files.

    Raises:
        StorageFailed: the gate passed, but a file could not be written; of one that failed, that is a note.
    """
    title = f"sar-eval {result.benchmark}"
    for question in result.failures[:ANNOTATED]:
        github.annotate("error", title, f"{question_words(question, result.run)} {answer_words(question)}")
    if result.passed:
        github.annotate("notice", title, verdict_words(result))
    try:
        _write(result, files)
    except StorageFailed as error:
        if result.passed:
            raise
        say(f"note: {error}", err=True)


def exit_if_failed(result: GateResult | None) -> None:
    """Exit code 1 for a gate that did not pass."""
    if result is not None and not result.passed:
        raise GateFailed(verdict_words(result))


def _write(result: GateResult, files: WhereCiLooks) -> None:
    from sar_eval.report.junit import gate_as_junit
    from sar_eval.report.markdown import gate_as_markdown
    from sar_eval.storage.files import write_bytes

    markdown = gate_as_markdown(result)
    github.add_summary(markdown)
    if files.markdown is not None:
        write_bytes(files.markdown, markdown.encode())
    if files.junit is not None:
        write_bytes(files.junit, gate_as_junit(result))


def print_gate(result: GateResult) -> None:
    """Each question with its answer, what readers must know, and the outcome."""
    for question in result.questions:
        mark = "pass" if question.passed else "FAIL"
        say(one_line(f"{mark}  {question_words(question, result.run)} {answer_words(question)}"))
    if result.baseline:
        say(one_line(f"A  {result.baseline}  {result.baseline_path} (the baseline)"))
    say(one_line(f"{'B' if result.baseline else 'run'}  {result.run}  {result.run_path}"))
    for note in result.notes:
        say(one_line(f"note: {note}"))
    if result.passed:
        say(verdict_words(result))  # else it is the error's message


def gate_json(result: GateResult) -> dict[str, Any]:
    """A gate as `--json` prints it, with its words."""
    from sar_eval.cli.compare import comparison_json

    data = asdict(result) | {"passed": result.passed}
    for question, row in zip(result.questions, data["questions"], strict=True):
        row["words"] = f"{question_words(question, result.run)} {answer_words(question)}"
    if result.comparison is not None:
        data["comparison"] = comparison_json(result.comparison)
    return data


def write_checked(flag: str, path: Path, data: bytes) -> None:
    """Write a file of a name that a flag gives.

    Raises:
        BadInput: there is no place for it.
    """
    from sar_eval.storage.files import write_bytes

    if path.exists() and not path.is_file():
        raise BadInput(
            f"{flag} {path} is {'a folder' if path.is_dir() else 'no regular file'}: name a file"
        )
    try:
        write_bytes(path, data)
    except StorageFailed as error:
        raise BadInput(f"{flag} {path}: {error.__cause__ or error}") from error
