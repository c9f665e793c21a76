"""Where OneIG-Bench's prompts, questions and texts come from, and how they become four suites.

Alignment and rendered text have other prompts and other judges, and each is there in English and Chinese.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sar_eval.documents import convert, parse_json, read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.suites.cut_templates import cut
from sar_eval.suites.dpg.questions import Question, write_questions
from sar_eval.suites.rendered_text import kept_characters
from sar_eval.suites.source import ImportedSuite, SuiteSource, Template, official, official_file
from sar_eval.tables import read_rows
from sar_eval.types import Json, Prompt, safe_id

ROOT = (
    "https://raw.githubusercontent.com/OneIG-Bench/OneIG-Benchmark/41b49831e79e6dde5323618c164da1c4cf0f699d"
)
LICENCE = "prompts CC BY-NC 4.0 (dataset card), repository without licence: fetched, never shipped"
# Of each language: the table of prompts, its column of prompts, and the end of the other files' names.
TABLES = {"en": ("OneIG-Bench.csv", "prompt_en", ""), "zh": ("OneIG-Bench-ZH.csv", "prompt_cn", "_zh")}
FOLDERS = {
    "Anime_Stylization": "anime",
    "Portrait": "human",
    "General_Object": "object",
    "Text_Rendering": "text",
    "Knowledge_Reasoning": "reasoning",
    "Multilingualism": "multilingualism",
}
JUDGE = "scripts/utils/inference.py"
# What the script puts behind every question, whose own sign stays.
SUFFIX = Template("suffix", JUDGE, "56523fb2ffc99c38363471b9cf9a1eb63f144d1569b40d54fa8e346ee142e7b3")
CLASSES = {"en": ("anime", "human", "object"), "zh": ("anime", "human", "object", "multilingualism")}


def alignment_source(suite: str, language: str) -> SuiteSource:
    """The source of the prompts with questions, in one language."""
    files = [*(_questions_file(kind, language) for kind in CLASSES[language]), JUDGE]
    return _source(suite, f"OneIG-Bench alignment ({language})", language, files, _read_alignment)


def text_source(suite: str, language: str) -> SuiteSource:
    """The source of the prompts with a text to render, in one language."""
    return _source(suite, f"OneIG-Bench text ({language})", language, [_text_file(language)], _read_texts)


def _source(
    suite: str, title: str, language: str, files: list[str], read: Callable[[Path, str], ImportedSuite]
) -> SuiteSource:
    names = (TABLES[language][0], *files)
    return SuiteSource(
        title=title,
        licence=LICENCE,
        files=tuple(official(suite, f"{ROOT}/{name}", "OneIG-Bench", name=name) for name in names),
        convert=lambda source: read(source, language),
        takes="OneIG-Bench's repository",
    )


def _questions_file(kind: str, language: str) -> str:
    return f"scripts/alignment/Q_D/{kind}{TABLES[language][2]}.json"


def _text_file(language: str) -> str:
    return f"scripts/text/text_content{TABLES[language][2]}.csv"


def _read_alignment(source: Path, language: str) -> ImportedSuite:
    """Prompts `anime_000` with their question graphs, class by class in the order of the questions' files.

    A question's text is the whole message to the judge, so the script is needed, too; it is never run.

    Raises:
        BadInput: with file: one is missing or broken, a question's prompt is not in the table, or a
            dependency belongs to no question (at which the script ends).
    """
    suffix = cut(SUFFIX, source)
    texts, notes = _prompt_texts(source, language)
    prompts = []
    for kind in CLASSES[language]:
        path = official_file(source, _questions_file(kind, language))
        for key, entry in convert(read_json(path), dict[str, dict[str, Any]], str(path)).items():
            where = f"{path}, {key}"
            text = _text_of(texts, kind, key, where)
            checks = write_questions(_questions(entry, suffix, where))
            prompts.append(Prompt(safe_id(f"{kind}_{key}"), text, kind, checks))
    number = sum(len(prompt.checks["questions"]) for prompt in prompts)
    return ImportedSuite(prompts, tuple(notes), f"with {number:,} questions")


def _questions(entry: Mapping[str, Json], suffix: str, where: str) -> list[Question]:
    texts = _by_number(entry.get("question"), str, f"{where}, question")
    parents = _by_number(entry.get("dependency"), list[int], f"{where}, dependency")
    if extra := sorted(parents.keys() - texts.keys()):
        raise BadInput(f"{where}: a dependency of question {extra[0]}, which does not exist")
    return [
        Question(number, f"{text}{suffix}", tuple(parent for parent in parents.get(number, ()) if parent))
        for number, text in texts.items()
    ]


def _by_number(value: Json, kind: Any, where: str) -> dict[int, Any]:
    """An object with numbers as keys, or its JSON text."""
    found = parse_json(value, where) if isinstance(value, str) else value
    texts = convert(found, dict[str, kind], where)
    if odd := next((key for key in texts if not (key.isascii() and key.isdecimal())), None):
        raise BadInput(f"{where}: {odd!r} is no number of a question")
    return {int(key): item for key, item in texts.items()}


def _read_texts(source: Path, language: str) -> ImportedSuite:
    """Prompts `text_000` with the text that each must show.

    Raises:
        BadInput: with file and line: as of the alignment.
    """
    texts, notes = _prompt_texts(source, language)
    path = official_file(source, _text_file(language))
    prompts = []
    for line, row in read_rows(path, notes=notes, required=("id", "text_content")):
        where = f"{path}:{line}"
        key, wanted = str(row.get("id", "")), str(row.get("text_content", ""))
        checks = {"text": wanted, "language": language}
        if not kept_characters(wanted).strip():
            raise BadInput(f"{where}: no letter or digit of its text {shorten(wanted)} counts")
        text = _text_of(texts, "text", key, where)
        prompts.append(Prompt(safe_id(f"text_{key}"), text, "text", checks))
    return ImportedSuite(prompts, tuple(notes))


def _prompt_texts(source: Path, language: str) -> tuple[dict[tuple[str, str], str], list[str]]:
    """The texts of all prompts by class and id, and notes on the table."""
    table, column, _ = TABLES[language]
    path = official_file(source, table)
    notes: list[str] = []
    texts = {}
    for line, row in read_rows(path, notes=notes, required=("category", "id", column)):
        category = row.get("category")
        if category not in FOLDERS or not row.get("id") or not row.get(column):
            raise BadInput(f"{path}:{line}: no id, no {column}, or an unknown category {category!r}")
        texts[FOLDERS[str(category)], str(row["id"])] = str(row[column])
    return texts, notes


def _text_of(texts: Mapping[tuple[str, str], str], kind: str, key: str, where: str) -> str:
    if (kind, key) not in texts:
        raise BadInput(f"{where}: the table of prompts has no prompt {key!r} of the class {kind!r}")
    return texts[kind, key]


SOURCE = alignment_source("oneig", "en")
