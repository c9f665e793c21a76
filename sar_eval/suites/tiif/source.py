"""Where TIIF-Bench's testmini prompts, questions and judge's texts come from: how they become a suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sar_eval.documents import convert
from sar_eval.errors import BadInput
from sar_eval.suites.source import ImportedSuite, SuiteSource, Template, official, official_file
from sar_eval.suites.tiif.scoring import LENGTHS, TYPES
from sar_eval.tables import read_rows
from sar_eval.types import Prompt, safe_id

ROOT = "https://raw.githubusercontent.com/A113N-W3I/TIIF-Bench/3aae7504d2546516eaec2fea82fde9ae445dfea3"
PROMPTS = "data/testmini_prompts/{}_prompts.jsonl"
QUESTIONS = "data/testmini_eval_prompts/{}_eval_prompts.jsonl"
JUDGE = "eval/eval_with_vlm.py"
MARKER = "##YNQuestions##"


def read_suite(source: Path) -> ImportedSuite:
    """The short and the long prompt of every line of every type, with the questions of the same line.

    Raises:
        BadInput: with file and line: a file is missing, a line is broken, or the files do not fit together.
    """
    prompts: list[Prompt] = []
    for kind in TYPES:
        prompts += _of_type(source, kind)
    number = sum(len(prompt.checks["questions"]) for prompt in prompts)
    return ImportedSuite(prompts, counted=f"with {number:,} questions")


def _of_type(source: Path, kind: str) -> Iterator[Prompt]:
    texts = _lines(source, PROMPTS.format(kind), kind)
    asked = _lines(source, QUESTIONS.format(kind), kind)
    if len(texts) != len(asked):
        raise BadInput(
            f"{source / QUESTIONS.format(kind)} has {len(asked)} lines, and its prompts have {len(texts)}: "
            "each line of one belongs to that of the other"
        )
    for index, ((where, row), (where_asked, questions)) in enumerate(zip(texts, asked, strict=True)):
        checks = {
            "type": kind,
            "questions": [text.strip() for text in _texts(questions, "yn_question_list", where_asked)],
            "answers": [text.strip().lower() for text in _texts(questions, "yn_answer_list", where_asked)],
        }
        for length in LENGTHS:
            text = convert(row.get(f"{length}_description"), str, f"{where}, {length}_description")
            name = safe_id(f"{kind}-{length}-{index}")
            yield Prompt(name, text, kind, {**checks, "length": length}, length)


def _lines(source: Path, name: str, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Place and contents of every line."""
    path = official_file(source, name)
    rows = [(f"{path}:{line}", row) for line, row in read_rows(path, notes=[], required=("type",))]
    for where, row in rows:
        if row["type"] != kind:
            raise BadInput(f"{where}: type {row['type']!r} in the file of {kind!r}")
    return rows


def _texts(row: dict[str, Any], key: str, where: str) -> list[str]:
    found = convert(row.get(key), list[str], f"{where}, {key}")
    if not found:
        raise BadInput(f"{where}: {key} is empty")
    return found


SOURCE = SuiteSource(
    title="TIIF-Bench testmini",
    licence="no licence file: fetched, never shipped",
    files=(
        *(
            official("tiif", f"{ROOT}/{quote(file.format(kind))}", purpose, name=file.format(kind))
            for file, purpose in ((PROMPTS, "TIIF-Bench's prompts"), (QUESTIONS, "TIIF-Bench's questions"))
            for kind in TYPES
        ),
        official("tiif", f"{ROOT}/{JUDGE}", "the judge's texts", name=JUDGE),
    ),
    convert=read_suite,
    takes="TIIF-Bench's repository",
    prompts=554,
    templates=(
        Template("system", JUDGE, "84fd78b891828c5a83e90b5ca8e145650e47faa44f8d282674759ba1d74bf943"),
        # The first of three of which the script draws one for each request.
        Template(
            "user",
            JUDGE,
            "d31a2a63260a75b36ebfe6d80e75a77206adb3c1c2c01d07e6d10ae6c8b90743",
            markers={MARKER: "questions"},
        ),
    ),
)
