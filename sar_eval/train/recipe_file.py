"""Write settings as TOML, so that what a training was asked for can be read, compared and run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from sar_eval.resume_rules import flat
from sar_eval.types import Json

RECIPE = "recipe.toml"  # beside a checkpoint: the whole recipe that it was trained with


def toml_text(tables: Mapping[str, Json]) -> str:
    """Values at the top first, then one table after another; None is left out, as TOML has none.

    Args:
        tables: text, whole and finite real numbers, truth values, lists of these, and tables of all that.
    """
    return "\n\n".join("\n".join(lines) for lines in _blocks(tables, ())) + "\n"


def _blocks(table: Mapping[str, Json], path: tuple[str, ...]) -> Iterator[list[str]]:
    plain = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(name)} = {_value(value)}" for name, value in plain.items() if value is not None]
    header = [f"[{'.'.join(map(_key, path))}]"] if path else []
    if lines or (path and len(plain) == len(table)):
        yield header + lines
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _blocks(value, (*path, name))


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else _text(name)


def _value(value: Json) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)  # numbers and truth values are JSON's; Python writes 1e-05, which is TOML too


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for characters of two halves, and DEL must be one."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def settings_digest(settings: Mapping[str, Json], without: Sequence[str] = ()) -> str:
    """SHA-256 of settings, 16 hex digits.

    Args:
        settings: tables of tables, JSON-shaped.
        without: dotted names that do not count; `*` is any part.
    """
    counted = {
        name: value
        for name, value in flat(settings).items()
        if not any(fnmatchcase(name, each) for each in without)
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]
