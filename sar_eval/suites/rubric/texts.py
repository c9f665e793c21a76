"""A rubric's texts: from the recipe, or from a file, where they may be verified by their checksum.

Texts of repositories without a licence are not ours to ship: they are fetched with their suite into the
cache, and the checksum says that they are the ones by which figures were published.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from sar_eval.documents import read_bytes, shorten
from sar_eval.errors import BadInput
from sar_eval.options import check_name
from sar_eval.suites import source
from sar_eval.types import Json

MAX_BYTES = 1_000_000


def text_options(name: str) -> tuple[str, str, str]:
    """The options that give a text: itself, its file, and the file's SHA-256."""
    return name, f"{name}_file", f"{name}_sha256"


def find_text(name: str, options: Mapping[str, Json], label: str) -> str:
    """The text `name` ("template", "system") of a judge's options; "" if none gives one.

    A "file" may also be `SUITE/NAME`, a text that was fetched with a suite (`suites.source.read_template`).

    Raises:
        BadInput: a text and a file, no such file, one that is not UTF-8, or another checksum; or a suite's
            text that was not fetched, or that somebody changed.
    """
    in_place, in_file, checksum = text_options(name)
    values = {key: options[key] for key in (in_place, in_file, checksum) if key in options}
    for key, value in values.items():
        if not isinstance(value, str):
            raise BadInput(f"{key} {shorten(value)} of {label}: a text")
    if in_place in values and in_file in values:
        raise BadInput(f"{label}: either {in_place} or {in_file}, not both")
    text, where = str(values.get(in_place, "")), f"{in_place} of {label}"
    if in_file in values:
        where = f"{in_file} {shorten(values[in_file])} of {label}"
        check_name(values[in_file], f"{in_file} of {label}")
        text = _read(values[in_file], where)
    if checksum in values:
        _verify(text, values[checksum], where, f"{checksum} of {label}")
    return text


def _read(name: str, where: str) -> str:
    path = Path(name)
    if not path.is_file():
        if name.partition("/")[0] in source.names():
            return source.read_template(name)
        raise BadInput(f"{where}: no file {path}, and no SUITE/NAME of a text that `prompts fetch` stores")
    try:
        return read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error}") from error


def _verify(text: str, expected: str, where: str, option: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", expected):
        raise BadInput(f"{option} is {shorten(expected)}: it must be a SHA-256, 64 hexadecimal digits")
    if (found := hashlib.sha256(text.encode()).hexdigest()) != expected:
        raise BadInput(
            f"{where} is another text than the recipe's figures are published with (SHA-256 {found}, "
            f"expected {expected})"
        )
