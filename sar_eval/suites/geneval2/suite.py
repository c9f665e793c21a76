"""GenEval 2's official file as a prompt suite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.suites.cut_templates import cut
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.geneval2.scoring import ATOMICITIES, SKILLS
from sar_eval.suites.geneval2.spellings import spellings
from sar_eval.suites.source import ImportedSuite, Template, official_file
from sar_eval.tables import read_rows
from sar_eval.types import Prompt

DATA, PROGRAM = "geneval2_data.jsonl", "evaluation.py"
OFFICIAL_PROMPTS = 800
COLUMNS = ("prompt", "atom_count", "vqa_list", "skills")
# What the script puts behind every question.
SUFFIX = Template("suffix", PROGRAM, "8dd8f98879f337c3c2bb825082f77317c1c433a7cd77bd53f78bc43f0f041adf")


def import_suite(source: Path) -> ImportedSuite:
    """Prompts and questions of the folder with the official data and script.

    A question's text is the whole message to the judge, so the script is needed, too; it is never run.

    Raises:
        BadInput: a file is missing, or a row has no prompt, no questions, another number of skills, or
            an answer that has no spellings; with file and line.
    """
    suffix, path, notes = cut(SUFFIX, source), official_file(source, DATA), list[str]()
    rows = read_rows(path, notes=notes, required=COLUMNS)
    prompts = [
        _prompt(number, row, suffix, f"{path}:{line}", notes) for number, (line, row) in enumerate(rows)
    ]
    if not prompts:
        raise BadInput(f"{path} has no rows")
    questions = sum(len(prompt.checks["questions"]) for prompt in prompts)
    return ImportedSuite(tuple(prompts), tuple(notes), f"with {questions:,} questions")


def _prompt(number: int, row: Mapping[str, Any], suffix: str, where: str, notes: list[str]) -> Prompt:
    text, atoms, skills = row.get("prompt"), row.get("atom_count"), row.get("skills")
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{where}: no prompt")
    if not isinstance(atoms, int) or isinstance(atoms, bool):
        raise BadInput(f"{where}: atom_count {shorten(atoms)} must be a whole number")
    if atoms not in ATOMICITIES:
        notes.append(f"{where}: atom_count {atoms}: the official analysis knows 3 to 10 and stops here")
    pairs = _pairs(row.get("vqa_list"), where)
    if not isinstance(skills, list) or len(skills) != len(pairs):
        raise BadInput(f"{where}: skills must be a list with one entry for each of {len(pairs)} questions")
    notes += [
        f"{where}: the skill {shorten(skill)} is unknown: the official analysis stops here"
        for skill in skills
        if skill not in SKILLS
    ]
    questions = [
        _question(index, *pair, skill, suffix, where)
        for index, (pair, skill) in enumerate(zip(pairs, skills, strict=True), 1)
    ]
    checks = {"atom_count": atoms, **write_questions(questions)}
    return Prompt(f"{number:03d}", text, f"atomicity {atoms}", checks)


def _pairs(value: Any, where: str) -> list[tuple[str, str]]:
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: vqa_list must be a list of questions with their answers")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise BadInput(f"{where}: {shorten(json.dumps(pair))} in vqa_list is no [question, answer]")
    return [(question, answer) for question, answer in value]


def _question(index: int, text: str, answer: str, skill: Any, suffix: str, where: str) -> Question:
    if not isinstance(skill, str) or not skill.strip():
        raise BadInput(f"{where}: the skill {shorten(skill)} is no name")
    expect, against = spellings(text, answer, where)
    return Question(
        index, f"{text}{suffix}", category=skill, statement=answer, expect=expect, against=against
    )
