"""Cut a text out of an official program, which is parsed, never run; a checksum says which text."""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from sar_eval.documents import parse_json, read_bytes
from sar_eval.encodings import read_text
from sar_eval.errors import BadInput
from sar_eval.suites.source import Template
from sar_eval.types import Json


def cut(template: Template, source: Path) -> str:
    """The text with the template's checksum in its official file.

    Args:
        template: which text.
        source: the folder of the official files, or one of them, beside which the others may lie.

    Raises:
        BadInput: the file is missing or unreadable, or no text in it has the checksum.
    """
    path = (source if source.is_dir() else source.parent) / template.file
    if not path.is_file():
        raise BadInput(f"no {path}, which holds the template {template.name!r}")
    for text in _texts(path, template.holes):
        for candidate in (text, text.strip()):
            if hashlib.sha256(candidate.encode(errors="surrogatepass")).hexdigest() == template.sha256:
                return candidate
    raise BadInput(
        f"{path}: no text in it has the SHA-256 of the template {template.name!r} "
        f"({template.sha256[:8]}...): it is another version of the file"
    )


def _texts(path: Path, holes: Mapping[str, str]) -> Iterator[str]:
    """Every text in a Python, JSON or JSON lines file; in any other, the whole file is the text."""
    if path.suffix == ".py":
        yield from _literals(path, holes)
    elif path.suffix == ".json":
        yield from _strings(parse_json(read_bytes(path), str(path)))
    elif path.suffix == ".jsonl":
        for number, line in enumerate(read_bytes(path).splitlines(), 1):
            if line.strip():
                yield from _strings(parse_json(line, f"{path}:{number}"))
    else:
        yield read_text(path, [])


def _literals(path: Path, holes: Mapping[str, str]) -> Iterator[str]:
    """Every string of a Python file, f-strings and sums of strings among them."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that newer Pythons frown upon
            tree = ast.parse(read_bytes(path), str(path))
        for node in ast.walk(tree):
            if (text := _text_of(node, holes)) is not None:
                yield text
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{path} is no readable Python file: {error}") from error


def _text_of(node: ast.AST, holes: Mapping[str, str]) -> str | None:
    """The text that a node stands for, with holes for what only a run would know; None if it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [_text_of(part, holes) for part in node.values]
    elif isinstance(node, ast.FormattedValue):
        expression = ast.unparse(node.value)
        return f"{{{holes.get(expression, expression)}}}"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_text_of(node.left, holes), _text_of(node.right, holes)]
    else:
        hole = holes.get(ast.unparse(node)) if isinstance(node, ast.expr) else None
        return None if hole is None else f"{{{hole}}}"
    return None if None in parts else "".join(part or "" for part in parts)


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
