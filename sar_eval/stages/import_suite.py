"""Stage: turn a suite's official files into a suite file, and store the judge's texts beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.storage.files import write_bytes
from sar_eval.suites.cut_templates import cut
from sar_eval.suites.source import ImportedSuite, SuiteSource, template_path, to_lines


def import_suite(name: str, suite: SuiteSource, source: Path, target: Path) -> ImportedSuite:
    """Write the suite file and the templates.

    Args:
        name: of the suite.
        suite: its declaration.
        source: folder of the official files, or the file alone.
        target: the .jsonl file to write.

    Returns:
        What was imported; a template that could not be cut out is a note: prompts are of use without it.

    Raises:
        BadInput: a file is missing or unusable; names file and line.
    """
    found = suite.convert(source)
    write_bytes(target, to_lines(found.prompts))
    return replace(found, notes=(*found.notes, *_store_templates(name, suite, source)))


def _store_templates(name: str, suite: SuiteSource, source: Path) -> list[str]:
    notes = []
    for template in suite.templates:
        try:
            text = cut(template, source)
        except BadInput as error:
            notes.append(f"{error}; the judge's text {name}/{template.name} was not stored")
            continue
        write_bytes(template_path(name, template.name), text.encode())
    return notes
