"""Read JSON and TOML that anyone may have written: bounded, checked, and with errors that say where.

Every document passes `parse_json` or `parse_toml`, and those with known keys also `convert`, which holds
them against a schema (a dataclass or a `msgspec.Struct`). Nothing else in the package parses JSON or
TOML from outside.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable
from json.scanner import make_scanner
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from sar_eval.errors import BadInput
from sar_eval.types import Json

MAX_DEPTH = 64  # nested lists and tables; Python's own parsers give up at some hundreds, by recursion
MAX_DIGITS = (
    40  # of a whole number; Python refuses 4,300; tokenizers have one of 31 (int(1e30), for "no limit")
)
MAX_BYTES = 64_000_000  # of a document that is read as a whole

USUAL_LENGTH = 10_000  # characters of a line of a prompt file
LARGEST = 2**63

T = TypeVar("T")
_ROW = msgspec.json.Decoder(dict[str, Any])


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Json:
    """The contents of a JSON file.

    Raises:
        BadInput: see `parse_json`; or the file cannot be read or is longer than `max_bytes`.
    """
    return parse_json(read_bytes(path, max_bytes), str(path))


def read_toml(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        BadInput: see `parse_toml`; or the file cannot be read or is longer than `max_bytes`.
    """
    return parse_toml(_text(read_bytes(path, max_bytes), str(path)), str(path))


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises:
        BadInput: there is no such file, it is no regular file, cannot be read, or is longer than that.
    """
    try:
        if path.exists() and not path.is_file():  # a folder, a pipe or a device: reading it may never end
            raise BadInput(f"{path} is {'a directory' if path.is_dir() else 'no regular file'}, not a file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise BadInput(f"no file {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > max_bytes:
        raise BadInput(f"{path} is longer than {max_bytes:,} bytes: is it the right file?")
    return data


def parse_json(data: bytes | str, where: str) -> Json:
    """JSON as Python values.

    Args:
        data: UTF-8 (with or without a byte order mark) or text.
        where: file, or file and line, for messages.

    Raises:
        BadInput: broken JSON, a key twice in one object, nesting deeper than `MAX_DEPTH`, a whole number
            of more than `MAX_DIGITS` digits, NaN or Infinity, a NUL character, or a lone surrogate (half
            a character).
    """
    text = _text(data, where) if isinstance(data, bytes) else data
    if (usual := _usual_row(text)) is not None:
        return usual
    _check_depth(text, where)
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise BadInput(f"{where}: broken JSON: {error.msg} at {at}column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # raised by the decoder's hooks, which say what is wrong
        raise BadInput(f"{where}: unusable JSON: {error}") from error
    if "\\u" in text or not text.isascii():  # nothing else can give such a character
        check_text(value, where)
    return value


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML as Python values.

    Raises:
        BadInput: broken TOML, or for the same reasons as `parse_json`.
    """
    _check_depth(text, where)
    if found := _LONG_NUMBER.search(text):
        raise BadInput(f"{where}: unusable TOML: a whole number of {len(found[0])} digits")
    try:
        value = tomllib.loads(text, parse_float=_real_number)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise BadInput(f"{where}: broken TOML: {error}") from error
    _check_values(value, where)  # dotted keys nest without brackets, and 0xfff... is a long number, too
    check_text(value, where)
    return value


def convert(value: Json, kind: type[T], where: str, how: str = "") -> T:
    """A parsed document as a dataclass or `msgspec.Struct`, every key of the declared type.

    Args:
        value: from `parse_json` or `parse_toml`.
        kind: the schema; keys that it does not have are ignored, unless it forbids them.
        where: file for messages.
        how: to mend it, appended to the message.

    Raises:
        BadInput: naming file, key and value, and what was expected.
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        message, _, path = str(error).partition(" - at ")
        key = path.strip("`").removeprefix("$").lstrip(".")
        found = f" (it is {shorten(_at(value, key))})" if key else ""
        raise BadInput(f"{where}: {key or 'the document'}: {message}{found}{how and f': {how}'}") from error


def check_text(value: Json, where: str) -> None:
    """Refuse text that can neither be stored nor be a name: NUL characters and halves of characters.

    Raises:
        BadInput: naming the text.
    """
    for text in _texts(value):
        if "\x00" in text:
            raise BadInput(f"{where}: {shorten(text)} contains a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadInput(
                f"{where}: contains a lone surrogate (half a character, such as \\ud800): {shorten(text)}"
            ) from error


def shorten(value: Json, limit: int = 80) -> str:
    """A value for a message, in ASCII and on one line."""
    text = ascii(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def cut(name: str, limit: int = 80) -> str:
    """A name as sentences and tables show it: on one line, of a long one the end, where names differ."""
    text = " ".join(name[-10 * limit :].split())
    return text if len(text) <= limit else f"...{text[3 - limit :]}"


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where} is not UTF-8: {error}") from error


def _check_depth(text: str, where: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # the common case, at the speed of C
        return
    depth = 0
    for found in _BRACKETS.finditer(text):  # strings are skipped as a whole
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            raise BadInput(f"{where}: nested deeper than {MAX_DEPTH} lists or objects")


def _check_values(value: Json, where: str) -> None:
    """The bounds of depth and digits for what is parsed already."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(type(item) is int and abs(item) >= 10**MAX_DIGITS for item in level):
            raise BadInput(f"{where}: a whole number of more than {MAX_DIGITS} digits")
        tables = [item.values() for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        level = [item for items in (*tables, *lists) for item in items]
        if not level:
            return
    raise BadInput(f"{where}: nested deeper than {MAX_DEPTH} lists or objects")


# A string of JSON or TOML, or a bracket. Possessive and bounded by newlines: linear in the text's length.
_BRACKETS = re.compile(r'"(?:[^"\\\n]|\\.)*+"|\'[^\'\n]*+\'|[\[\]{}]')
_LONG_NUMBER = re.compile(rf"(?<![\w\"'.])[+-]?[0-9_]{{{MAX_DIGITS + 1},}}(?=[\s,\]}}#]|$)")


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _real_number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is not finite")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shorten(twice)} is there twice")
    return table


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_whole_number,
    parse_float=_real_number,
    parse_constant=_no_constant,
)


_scan = make_scanner(cast(Any, _DECODER))


def _usual_row(text: str) -> dict[str, Any] | None:
    """A short object of texts and numbers, decoded by msgspec in a third of the time; None for any other.

    msgspec refuses what we refuse, but for a key that is there twice (then there are more colons behind
    quotes than keys), NUL characters, depth and long numbers: those take the long way, as does every error.
    """
    if len(text) > USUAL_LENGTH or not text.isascii() or "\\u" in text or "[" in text:
        return None
    if '" ' in text or '"\t' in text or '"\n' in text or '"\r' in text:  # maybe before a colon
        return None
    try:
        value = _ROW.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    if text.count('":') != len(value) or text.count("{") != 1:
        return None
    for number in value.values():
        if type(number) is int and not -LARGEST < number < LARGEST:
            return None
    return value


def _decode(text: str) -> Json:
    """As the decoder does, without its two searches for blanks, which take a third of its time."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return _DECODER.decode(text)
    return value if end == len(text) else _DECODER.decode(text)


def _texts(value: Json) -> Iterable[str]:
    """All text in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (name for name in value if isinstance(name, str))
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _at(value: Json, path: str) -> Json:
    """The value at a path as msgspec writes it: `spec.protocol.top_k`, `rows[3].id`, `options[...]`."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return value
    return value
