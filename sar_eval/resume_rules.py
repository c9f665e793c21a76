"""Whether a training may go on: every setting must be as before, but those that may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.types import Json


def refuse_others(
    stored: Mapping[str, Json], settings: Mapping[str, Json], path: Path, may_change: Sequence[str] = ()
) -> None:
    """Hold settings against those that a training began with.

    Args:
        stored: tables of tables, as they were.
        settings: as they are asked for now.
        path: of the file that says what they were, for the message.
        may_change: dotted names of those that may be others now; `*` is any part.

    Raises:
        BadInput: naming the first that differs, and both values.
    """
    for name, before, now in differences(stored, settings):
        if not any(fnmatchcase(name, each) for each in may_change):
            raise BadInput(
                f"{path} says {name} = {shorten(before)}, asked for is {shorten(now)}: go on with the same "
                "settings, or take another --out"
            )


def differences(
    stored: Mapping[str, Json], settings: Mapping[str, Json]
) -> Iterator[tuple[str, Json, Json]]:
    """Dotted names of the values that differ, in order, with both; None where there is none."""
    before, now = flat(stored), flat(settings)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def flat(value: Json, prefix: str = "") -> dict[str, Json]:
    """Every value that is no table, by its dotted name; tables of a list have numbers."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(number): item for number, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return {prefix: value}
    dotted = {f"{prefix}.{key}" if prefix else key: item for key, item in value.items()}
    return {name: each for key, item in dotted.items() for name, each in flat(item, key).items()}
