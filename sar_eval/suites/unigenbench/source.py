"""Where UniGenBench's prompts, test points and judge's texts come from, and how they become a suite."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sar_eval.documents import convert, parse_json, read_bytes
from sar_eval.errors import BadInput
from sar_eval.suites.source import ImportedSuite, SuiteSource, Template, official, official_file
from sar_eval.suites.unigenbench.scoring import read_test_points
from sar_eval.tables import read_rows
from sar_eval.types import Prompt, safe_id

ROOT = "https://raw.githubusercontent.com/CodeGoat24/UniGenBench/49d0bcebb0b9418d975d3957c2fee10f34811d14"
JUDGE = "eval/src/eval_common.py"
TEMPLATES = {
    "en": "9554ee938feaaf928d9086ba959e19063bcb027be086821d7dcb45e55ad40f14",
    "zh": "03ccae681043f88291c14036b98ee99fbe34ac7659fe2186244afec075698926",
}
# Names in the tables' column of test points: of the dimensions, and of what to look for.
KEYS = {"en": ("Testpoints", "Testpoint Description"), "zh": ("考点", "考点对应描述")}
OPENING = "「"  # ends the header of either list in the judge's text
Definitions = tuple[dict[str, str], tuple[str, str]]  # of the dimensions; the headers of the two lists


def make_source(suite: str, language: str) -> SuiteSource:
    """The source of one language's suite."""
    table = _table(language)
    return SuiteSource(
        title=f"UniGenBench ({language})",
        licence="CC BY 4.0, (C) Tencent 2025; code and judge's texts without a licence of their own",
        files=(
            official(suite, f"{ROOT}/{table}", "UniGenBench's prompts and test points", name=table),
            official(suite, f"{ROOT}/{JUDGE}", "the judge's texts", name=JUDGE),
        ),
        convert=_reader(language),
        takes="UniGenBench's repository",
        prompts=600,
        templates=(Template("user", JUDGE, TEMPLATES[language]),),
    )


def _table(language: str) -> str:
    return f"data/test_prompts_{language}.csv"


def _reader(language: str) -> Callable[[Path], ImportedSuite]:
    def read_suite(source: Path) -> ImportedSuite:
        definitions = _definitions(official_file(source, JUDGE), language)
        path = official_file(source, _table(language))
        notes: list[str] = []
        columns = ("index", f"prompt_{language}", f"sub_dims_{language}")
        rows = read_rows(path, notes=notes, required=columns)
        prompts = [_prompt(row, language, definitions, f"{path}:{line}") for line, row in rows]
        number = sum(len(prompt.checks["dimensions"]) for prompt in prompts)
        return ImportedSuite(prompts, tuple(notes), f"with {number:,} test points")

    return read_suite


def _prompt(row: dict[str, Any], language: str, definitions: Definitions, where: str) -> Prompt:
    """The prompt of a row; its checks have what the judge's template asks for, as the script writes it."""
    parts = parse_json(str(row.get(f"sub_dims_{language}", "")), f"{where}, sub_dims_{language}")
    found = convert(parts, dict[str, Any], where)
    dimensions, descriptions = (found.get(key) for key in KEYS[language])
    points = read_test_points({"dimensions": dimensions, "descriptions": descriptions}, where)
    texts, headers = definitions
    if unknown := next((name for name in points.dimensions if name not in texts), None):
        raise BadInput(f"{where}: the judge's texts do not define the dimension {unknown!r}")
    defined = [texts[name] for name in points.dimensions]
    checks = {
        "dimensions": list(points.dimensions),
        "descriptions": list(points.descriptions),
        "testpoint": str(list(points.dimensions)),
        "explanation": _listed(headers[0], points.dimensions, defined),
        "test_explanation": _listed(headers[1], points.dimensions, points.descriptions),
    }
    return Prompt(safe_id(str(row.get("index", ""))), str(row.get(f"prompt_{language}", "")), "", checks)


def _listed(header: str, names: tuple[str, ...], texts: Any) -> str:
    lines = (f"\n{name}: {text}" for name, text in zip(names, texts, strict=True))
    return f"{header}{''.join(lines)}\n」"


def _definitions(path: Path, language: str) -> Definitions:
    """The texts of the 27 dimensions, and the two headers, of a language; the program is parsed, not run.

    Raises:
        BadInput: they are not where they are expected: it is another version of the file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that newer Pythons frown upon
            nodes = list(ast.walk(ast.parse(read_bytes(path), str(path))))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{path} is no readable Python file: {error}") from error
    texts = {name: text for node in nodes if isinstance(node, ast.Dict) for name, text in _pairs(node)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and _is_header(node.value)]
    found = [str(node.value) for node in sorted(constants, key=lambda node: (node.lineno, node.col_offset))]
    headers = [text for text in dict.fromkeys(found) if text[:-1].isascii() == (language == "en")]
    if len(headers) != 2:
        raise BadInput(
            f"{path} has {len(headers)} headers of lists for {language!r}, not 2: another version?"
        )
    return texts, (headers[0], headers[1])


def _pairs(node: ast.Dict) -> Iterator[tuple[str, str]]:
    """Names and texts that stand in a program as they are."""
    for name, text in zip(node.keys, node.values, strict=True):
        if isinstance(name, ast.Constant) and isinstance(text, ast.Constant):
            yield str(name.value), str(text.value)


def _is_header(value: object) -> bool:
    """Whether a text is one line that ends in a colon and an opening corner bracket."""
    return (
        isinstance(value, str) and "\n" not in value and value.endswith((f":{OPENING}", f"\uff1a{OPENING}"))
    )


SOURCE = make_source("unigenbench", "en")
