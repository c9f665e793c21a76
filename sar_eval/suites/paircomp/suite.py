"""PairComp's official file as a prompt suite: two prompts for each pair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.suites.cut_templates import cut
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.paircomp.scoring import NO, YES, category_of
from sar_eval.suites.source import ImportedSuite, Template, official_file
from sar_eval.tables import read_rows
from sar_eval.types import Prompt

DATA, PROGRAM = "prompt/PairComp.json", "evaluate_images.py"
OFFICIAL_PROMPTS = 1100
CAPTIONS = ("caption1", "caption2")
PICTURE = "<image>\n"  # stands for the picture in the official text; the answerers put it first themselves
QUESTION = Template(
    "question",
    PROGRAM,
    "51c8af3a5294aecfb407985b5e80ba9d5112b38f5e10410071eedd38f9736066",
    holes={"prompt": "prompt"},
)


def import_suite(source: Path) -> ImportedSuite:
    """Captions of the folder with the official data and script, which is never run.

    Prompt `12_1` is the second caption of pair 12, whose pictures the script calls `12_1_0.png` and
    `12_1_1.png`. A question's text is the whole message to the judge.

    Raises:
        BadInput: a file is missing, or a row has no captions or an unknown category; with file and line.
    """
    template, path, notes = cut(QUESTION, source), official_file(source, DATA), list[str]()
    rows = read_rows(path, notes=notes, required=("category", *CAPTIONS))
    prompts = [
        prompt
        for number, (line, row) in enumerate(rows)
        for prompt in _pair(number, row, template.removeprefix(PICTURE), f"{path}:{line}")
    ]
    if not prompts:
        raise BadInput(f"{path} has no rows")
    return ImportedSuite(tuple(prompts), tuple(notes), f"in {len(prompts) // 2:,} pairs")


def _pair(number: int, row: Mapping[str, Any], template: str, where: str) -> list[Prompt]:
    name = row.get("category")
    category = category_of(name) if isinstance(name, str) else None
    if category is None:
        raise BadInput(f"{where}: the category {shorten(name)} is none of PairComp's six")
    prompts = []
    for which, column in enumerate(CAPTIONS):
        if not isinstance(caption := row.get(column), str) or not caption.strip():
            raise BadInput(f"{where}: no {column}")
        asked = template.replace("{prompt}", caption)
        question = Question(1, asked, category=category, expect=YES, against=NO, is_ratio=True)
        checks = {"pair": str(number), "category": category, **write_questions([question])}
        prompts.append(Prompt(f"{number}_{which}", caption, category, checks))
    return prompts
