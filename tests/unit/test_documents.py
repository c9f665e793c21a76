"""JSON and TOML from outside: what no loader of the package ever sees, and what the message names."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sar_eval.documents import MAX_DEPTH, convert, parse_json, parse_toml, read_json, read_toml
from sar_eval.errors import BadInput


@dataclass(frozen=True)
class Settings:
    seed: int
    name: str = ""
    options: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"\\ud800"', "lone surrogate"),
        ('{"\\udfff": 1}', "lone surrogate"),
        ('["a\\u0000"]', "NUL character"),
        ("NaN", "NaN is no number"),
        ('{"a": [-Infinity]}', "-Infinity is no number"),
        ("1e999", "not finite"),
        ("9" * 5000, "a whole number of 5000 digits"),
        ("[" * 3000 + "]" * 3000, "nested deeper than 64"),
        ('{"a":' * 400 + "1" + "}" * 400, "nested deeper than 64"),
        ("[" * 100_000, "nested deeper than 64"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        ("{", "broken JSON: Expecting property name"),
        ('{"a": 1}\n{"a": 2}', "broken JSON: Extra data at line 2, column 1"),
        (b"\xff\xfe", "is not UTF-8"),
        ('"a\nb"', "broken JSON"),
    ],
)
def test_unusable_json_is_refused_by_file(text: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        parse_json(text, "notes.json")
    assert str(caught.value).startswith("notes.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = " + "9" * 5000, "5000 digits"),
        ("a = " + "[" * 2000 + "]" * 2000, "nested deeper"),
        ('a = "\\u0000"', "NUL character"),
        ("a = nan", "not finite"),
        ("a = -inf", "not finite"),
        ("a = 1\na = 2", "broken TOML: Cannot overwrite a value"),
    ],
)
def test_unusable_toml_is_refused_by_file(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        parse_toml(text, "recipe.toml")
    assert str(caught.value).startswith("recipe.toml")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the document: Expected `object`, got `array`"),
        (None, "the document: Expected `object`, got `null`"),
        ({}, "the document: Object missing required field `seed`"),
        ({"seed": "1"}, r"seed: Expected `int`, got `str` \(it is '1'\)"),
        ({"seed": True}, "seed: Expected `int`, got `bool`"),
        ({"seed": 1, "options": []}, "options: Expected `object`, got `array`"),
        ({"seed": 1, "options": {"x": "y"}}, "options.*: Expected `float`, got `str`"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(value: object, message: str) -> None:
    with pytest.raises(BadInput, match=f"^run.json: {message}.*: remove it$"):
        convert(value, Settings, "run.json", "remove it")


def test_documents_with_known_keys_become_their_dataclass() -> None:
    text = "\ufeff" + '{"seed": 7, "name": "ä", "options": {"a": 2}, "unknown": [1]}'
    assert convert(parse_json(text.encode(), "x"), Settings, "x") == Settings(7, "ä", {"a": 2.0})


def test_depth_counts_lists_and_not_the_brackets_in_text() -> None:
    deep = "[" * MAX_DEPTH + '"' + "[{" * 500 + '\\""' + "]" * MAX_DEPTH
    assert "[{[{" in str(parse_json(deep, "x"))
    assert parse_toml('a = "' + "[" * 500 + '"', "x") == {"a": "[" * 500}


def test_only_regular_files_of_bounded_length_are_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a directory"):
        read_json(tmp_path)
    with pytest.raises(BadInput, match="no file"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "long.json").write_text("[" + "1," * 100 + "1]")
    with pytest.raises(BadInput, match="longer than 100 bytes"):
        read_json(tmp_path / "long.json", max_bytes=100)
    with pytest.raises(BadInput, match="no regular file"):
        read_json(Path("/dev/zero"))
    with pytest.raises(BadInput, match=r"cannot read|no file"):
        read_json(tmp_path / ("x" * 300))
    with pytest.raises(BadInput, match="cannot read"):
        read_json(tmp_path / "a\0b")


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='[]{}",:\\u0de18NaN \n', max_size=200)))
def test_any_input_is_read_or_refused(data: bytes | str) -> None:
    for parse in (parse_json, lambda d, w: parse_toml(d if isinstance(d, str) else d.decode("latin1"), w)):
        try:
            convert(parse(data, "f"), Settings, "f")
        except BadInput:
            continue


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a" :1,"a":2}',
        '{"a"\t:1,"a":2}',
        '{"a"\n:1,"a"\n:2}',
        '{"x\\"y": "b\\":", "x\\"y": 1}',
        '{"a": {"b": 1, "b": 2}}',
        '{"a": 99999999999999999999999999999999999999999999}',
        '{"a": "\\u0000"}',
        '{"a": "\\ud800"}',
        '{"a": 1e999}',
        '{"a": NaN}',
    ],
)
def test_short_rows_are_read_fast_but_not_otherwise(text: str) -> None:
    with pytest.raises(BadInput):
        parse_json(text, "f")
    longer = text[:-1] + ', "pad": "' + "x" * 20_000 + '"}'
    with pytest.raises(BadInput):
        parse_json(longer, "f")


@given(
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-(2**70), 2**70), st.floats(), st.none()))
)
def test_the_fast_way_gives_what_the_long_one_gives(row: dict[str, object]) -> None:
    for separators in ((",", ":"), (", ", ": "), (" , ", " : ")):
        text = json.dumps(row, separators=separators)
        results = []
        for shown in (text, text[:-1] + " " * 20_000 + "}"):  # the long one takes the long way
            try:
                results.append(parse_json(shown, "f"))
            except BadInput:
                results.append("refused")
        assert results[0] == results[1]
