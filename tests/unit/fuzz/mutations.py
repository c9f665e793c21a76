"""Hypothesis strategies that turn a good file into one that nobody means."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

# Pieces that have ended some parser or other.
PIECES = (
    *(
        b"\x00",
        b"\xff",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\\u0000",
        b"\r",
        b"\n\n",
    ),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b"0x" + b"f" * 5000,
        b"-1",
        b"1979-05-27",
        b"null",
        b"true",
    ),
    *(
        b"[" * 600,
        b'{"a":' * 600,
        b"{a=" * 600,
        b"a." * 600,
        b'"',
        b"'",
        b"{}",
        b"[]",
        b"//",
        b"../",
        b"\\",
    ),
    *(
        b"x" * 300,
        b"a" * 200_000,
        b"*a",
        b"&a [*a]",
        b"!!python/name:os.system",
        b"\t",
        b";",
        b'""',
        b"=",
        b"#",
    ),
)
WRONG_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**19, 10**40, 1e308, "", "\x00", "\ud800", "x" * 300, "../../x", "x.py:Y"),
    *(
        [],
        {},
        [[]],
        [None],
        {"a": None},
        {"": ""},
        "1979-05-27",
        "nan",
        "\x1b[2J",
        "a" * 100_000,
        [0] * 1000,
    ),
)


@st.composite
def mutated(draw: st.DrawFn, good: bytes, shape: str) -> bytes:
    """The file with one value replaced (if it is JSON or JSON lines), or some of its bytes, or both."""
    data = good
    as_values = bool(shape) and draw(st.integers(0, 2)) > 0
    if as_values:
        data = draw(_with_wrong_value(good, shape))
    for _ in range(draw(st.integers(0 if as_values else 1, 3))):
        data = draw(_edited(data))
    return data


@st.composite
def _edited(draw: st.DrawFn, data: bytes) -> bytes:
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + draw(st.sampled_from((1, 8, 400))))))
    kind = draw(st.sampled_from(("flip", "cut", "drop", "repeat", "insert", "replace")))
    if kind == "flip":
        flipped = bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) if start < len(data) else b""
        return data[:start] + flipped + data[start + 1 :]
    middle = {
        "cut": b"",
        "drop": b"",
        "repeat": data[start:end] * 3,
        "insert": draw(st.sampled_from(PIECES)) + data[start:end],
        "replace": draw(st.sampled_from(PIECES)),
    }[kind]
    return data[:start] + middle + (b"" if kind == "cut" else data[end:])


@st.composite
def _with_wrong_value(draw: st.DrawFn, good: bytes, shape: str) -> bytes:
    lines = good.decode().splitlines() if shape == "jsonl" else [good.decode()]
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    lines[number] = json.dumps(_replaced(draw, value))
    return "\n".join(lines).encode()


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    path = draw(st.sampled_from(list(_paths(value))))
    wrong = draw(st.sampled_from(WRONG_VALUES))
    if not path:
        return wrong
    changed = copy.deepcopy(value)
    place = changed
    for step in path[:-1]:
        place = place[step]
    change = draw(st.sampled_from(("value", "drop", "key"))) if isinstance(place, dict) else "value"
    if change == "value":
        place[path[-1]] = wrong
    elif change == "drop":
        del place[path[-1]]
    else:
        place[str(wrong)] = place.pop(path[-1])
    return changed


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value within a value is; of a list the first five."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:5] if isinstance(value, list) else ())
    )
    for key, item in items:
        yield from _paths(item, (*path, key))
