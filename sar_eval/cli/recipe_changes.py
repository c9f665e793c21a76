"""From words of the command line to changed values of a recipe's tables."""

from __future__ import annotations

from collections.abc import Sequence

from sar_eval.cli.options import toml_value
from sar_eval.errors import BadInput
from sar_eval.types import Json


def changed_tables(words: Sequence[str] | None, example: str) -> dict[str, Json]:
    """`--set` words such as `grpo.steps=10` or `rewards.shapes-soft.weight=0` as tables.

    Args:
        words: as they were given.
        example: of such a word, for the message.

    Raises:
        BadInput: one of another form, or two that contradict each other.
    """
    tables: dict[str, Json] = {}
    for word in words or ():
        _put(tables, word, example)
    return tables


def _put(tables: dict[str, Json], word: str, example: str) -> None:
    name, equals, value = word.partition("=")
    *path, key = name.split(".")
    if not equals or not path or not all([*path, key]):
        raise BadInput(f"--set {word}: TABLE.KEY=VALUE, as {example}")
    for table in path:
        tables = tables.setdefault(table, {})
        if not isinstance(tables, dict):
            raise BadInput(f"--set {word}: {table} has a value of its own, it is no table")
    tables[key] = toml_value(value, f"--set {name}")
