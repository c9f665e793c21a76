"""Where LongText-Bench's English prompts come from, and how either language's file becomes a suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.suites.longtext.scoring import read_key
from sar_eval.suites.source import ImportedSuite, SuiteSource, official, official_file
from sar_eval.tables import read_rows
from sar_eval.types import Prompt, safe_id

ROOT = "https://raw.githubusercontent.com/X-Omni-Team/X-Omni/2b8237bb3789638c290eeda3e83ed81bd3652c3b/textbench"
FILES = {"en": "text_prompts.jsonl", "zh": "text_prompts_zh.jsonl"}


def make_source(suite: str, language: str) -> SuiteSource:
    """The source of one language's suite."""
    file = FILES[language]
    return SuiteSource(
        title=f"LongText-Bench ({language})",
        licence="Apache-2.0 (X-Omni)",
        files=(official(suite, f"{ROOT}/{file}", "LongText-Bench's prompts (X-Omni)"),),
        convert=_reader(language),
        takes=f"X-Omni's folder textbench, or its {file} alone",
        prompts=160,
    )


def _reader(language: str) -> Callable[[Path], ImportedSuite]:
    def read_suite(source: Path) -> ImportedSuite:
        path = official_file(source, FILES[language])
        notes: list[str] = []
        rows = read_rows(path, notes=notes, required=("prompt_id", "prompt", "text"))
        prompts = [_prompt(row, language, f"{path}:{line}") for line, row in rows]
        return ImportedSuite(prompts, tuple(notes))

    return read_suite


def _prompt(row: dict[str, object], language: str, where: str) -> Prompt:
    """Ids are the official pictures' names, `0000` of `0000_1.png`."""
    number, text = row["prompt_id"], row["prompt"]
    if not isinstance(text, str) or not str(number).isdecimal():
        raise BadInput(f"{where}: prompt_id must be a number and prompt a text")
    parts = row["text"] if isinstance(row["text"], list) else [row["text"]]
    checks = {"text": parts, "language": language}
    read_key(checks, where)
    tag, split = (str(row.get(key) or "") for key in ("category", "length"))
    return Prompt(safe_id(f"{int(str(number)):04}"), text, tag, checks, split)


SOURCE = make_source("longtext", "en")
