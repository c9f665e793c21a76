"""Prompt files as people have them: other columns, ids, encodings, folders, and Parquet with images."""

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from sar_eval.errors import BadInput
from sar_eval.storage.files import read_batches
from sar_eval.suites.prompts import load_suite
from sar_eval.types import SAFE_ID, safe_id

PARTI = 'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tx\n"Hi" on a wall\tWriting\tSymbols\t\n'


def _write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("PartiPrompts.tsv", PARTI),
        (
            "PartiPrompts.csv",
            PARTI.replace('"Hi" on', '"""Hi"" on').replace("wall", 'wall"').replace("\t", ","),
        ),
        ("p.csv", 'caption;CATEGORY\nbond;Abstract\n"""Hi"" on a wall";Writing\n;\n'),
        (
            "p.csv",
            ' Prompts , category \nbond,Abstract\n"""Hi"" on a wall",Writing\n,,,\n'.encode("utf-16"),
        ),
        (
            "p.json",
            """[{"caption": "bond", "Category": "Abstract"},
            {"Prompt": "\\"Hi\\" on a wall", "tag": "Writing"}]""",
        ),
    ],
)
def test_other_columns_are_taken_and_told_once(tmp_path: Path, name: str, data: str | bytes) -> None:
    suite = load_suite(_write(tmp_path / name, data))
    assert [(p.id, p.text, p.tag) for p in suite.prompts] == [
        ("00000", "bond", "Abstract"),
        ("00001", '"Hi" on a wall', "Writing"),
    ]
    (note,) = [note for note in suite.notes if "columns are taken by other names" in note]
    assert "prompts from '" in note
    assert "tags from '" in note


def test_mjhqs_array_is_read(tmp_path: Path) -> None:
    assert [p.text for p in load_suite(_write(tmp_path / "a.json", '["a", "b"]')).prompts] == ["a", "b"]
    suite = load_suite(_write(tmp_path / "mjhq.json", '[{"caption": "a", "id": 7}]'))
    assert [(p.id, p.text) for p in suite.prompts] == [("7", "a")]


def test_our_own_columns_are_never_replaced_by_others(tmp_path: Path) -> None:
    """Digests of suites that version 0.1.0 read stay what they were."""
    row = {"prompt": "a", "caption": "b", "Category": "c", "ID": "x", "Text": "d"}
    suite = load_suite(_write(tmp_path / "p.jsonl", json.dumps(row)))
    (prompt,) = suite.prompts
    assert (prompt.id, prompt.text, prompt.tag) == ("00000", "a", "")
    (note,) = suite.notes
    assert "not read" in note
    assert "'ID' (call it id)" in note


@pytest.mark.parametrize(
    ("data", "ids", "line"),
    [
        ('{"x1": {"prompt": "a"},\n "x2": {"prompt": ""}}', ["x1", "x2"], 2),  # as MJHQ-30K has them
        ('{"x1": "a",\n\n"x2": ""}', ["x1", "x2"], 3),
        ('{"prompts": ["a", ""]}', ["00000", "00001"], 1),
        ('{"info": {"v": 1}, "data": [{"prompt": "a"}, {"prompt": ""}]}', ["00000", "00001"], 1),
        ('{"Prompt": {"0": "a", "1": ""}, "id": {"0": "i", "1": "j"}}', ["i", "j"], 1),  # as pandas writes
        ('{"prompt": ["a", ""], "id": ["i", "j"]}', ["i", "j"], 1),
        ('{"columns": ["prompt"], "index": [0, 1], "data": [["a"], [""]]}', ["00000", "00001"], 1),
    ],
)
def test_one_object_with_all_prompts(tmp_path: Path, data: str, ids: list[str], line: int) -> None:
    suite = load_suite(_write(tmp_path / "p.json", data.replace('""', '"b"')))
    assert [(prompt.id, prompt.text) for prompt in suite.prompts] == list(zip(ids, "ab", strict=True))
    assert sum("one object is read as" in note for note in suite.notes) == 1
    with pytest.raises(BadInput, match=rf"p\.json:{line}: no prompt text"):
        load_suite(_write(tmp_path / "p.json", data))


@pytest.mark.parametrize(
    "data",
    [
        '{\n"prompt": "a",\n"n": [{"b": 1}]}',
        '{\n"classes": ["a", "b"]}',
        '{\n"x": 1,\n"y": {"prompt": "a"}}',
    ],
)
def test_other_objects_are_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(BadInput, match="must be one array"):
        load_suite(_write(tmp_path / "p.json", data))


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        ('{"prompt": "a"}\n{"prompt": "b"}', ".jsonl or .json"),
        ('[\n"a",\n"b"]', ".jsonl or .json"),
        ("id, prompt\n1, a", ".csv"),
        ("Prompt;Tag\na;b", ".csv"),
        ("a cat, a dog\n[a] {b}", ""),
        ("prompt me", ""),
    ],
)
def test_tables_under_the_name_of_a_text_are_told(tmp_path: Path, data: str, suffix: str) -> None:
    notes = load_suite(_write(tmp_path / "p.txt", data)).notes
    assert [suffix in note for note in notes] == ([True] if suffix else [])


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_geneval_metadata_in_columns_of_json_text(tmp_path: Path, name: str) -> None:
    row = {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "two dogs"}
    (plain,) = load_suite(_write(tmp_path / "p.jsonl", json.dumps(row))).prompts
    table = pa.table(
        {key: [value if isinstance(value, str) else json.dumps(value)] for key, value in row.items()}
    )
    (csv.write_csv if name.endswith("csv") else pq.write_table)(table, tmp_path / name)
    assert load_suite(tmp_path / name).prompts == (plain,)
    _write(tmp_path / "bad.csv", "prompt,include\na,\"[{'class': 1}]\"")
    with pytest.raises(BadInput, match=r"bad\.csv:2, column include: broken JSON"):
        load_suite(tmp_path / "bad.csv")


def test_maps_and_nan_in_parquet(tmp_path: Path) -> None:
    maps = pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))
    path = _parquet(tmp_path / "p.parquet", text=["a", "b"], tag=[float("nan"), 1.0], checks=maps)
    assert [(p.tag, p.checks) for p in load_suite(path).prompts] == [("", {"a": 1}), ("1.0", None)]


def test_dpgs_folder_of_texts(tmp_path: Path) -> None:
    for name, text in (("2", "two\n"), ("10", "ten"), ("a b", "\ufeffmore\nlines\n"), ("._2", "\x00\x01")):
        _write(tmp_path / f"{name}.txt", text)
    suite = load_suite(tmp_path)
    assert {p.id: p.text for p in suite.prompts} == {"10": "ten", "2": "two", safe_id("a b"): "more\nlines"}
    assert suite.name == tmp_path.name
    assert "3 prompts, one in each .txt file" in suite.notes[0]
    _write(tmp_path / "empty.txt", " \n")
    with pytest.raises(BadInput, match=r"empty\.txt: no prompt text"):
        load_suite(tmp_path)


@pytest.mark.parametrize(
    "name", ["vg/12", "_abc", "猫1", "a b", "../x", ".hidden", "x" * 300, "--help", "é"]
)
def test_unsafe_ids_get_a_safe_name_that_the_original_leads_to(tmp_path: Path, name: str) -> None:
    rows = [{"id": name, "text": "a"}, {"id": "v1.5_a", "text": "b"}]
    suite = load_suite(_write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows))))
    made = suite.prompts[0].id
    assert SAFE_ID.fullmatch(made)
    assert made == safe_id(name) == safe_id(made)
    assert suite.prompts[1].id == "v1.5_a"
    (note,) = suite.notes
    assert "1 ids were rewritten for file names" in note
    assert made in note


def test_safe_names_differ_where_ids_do() -> None:
    names = ["a/b", "a b", "a-b", "A/b", "a//b", "猫", "犬", "_", "__"]
    assert len({safe_id(name).lower() for name in names}) == len(names)


def test_ids_as_floats_and_nulls(tmp_path: Path) -> None:
    suite = load_suite(_parquet(tmp_path / "p.parquet", id=[1.0, 2.0, None, float("nan")], text=[*"abcd"]))
    assert [p.id for p in suite.prompts] == ["1", "2", "00002", "00003"]
    assert "2 ids are numbers like 1.0, read as 1" in suite.notes[0]


def test_images_beside_the_prompts_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [{"bytes": bytes([n]) * 500_000, "path": f"{n}.png"} for n in range(40)]
    path = _parquet(
        tmp_path / "p.parquet", prompt=[f"a {n}" for n in range(40)], image=images, png=[b"x"] * 40
    )
    read = []

    def spy(path: Path, columns: list[str]):
        read.append(columns)
        return read_batches(path, columns)

    monkeypatch.setattr("sar_eval.storage.files.read_batches", spy)
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    assert len(load_suite(path).prompts) == 40
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    assert pa.total_allocated_bytes() - arrow < 2_000_000
    tracemalloc.stop()
    assert read == [["prompt"]]


def test_geneval_metadata_in_parquet_leaves_images_out(tmp_path: Path) -> None:
    include = [[{"class": "ring", "count": 1}]]
    path = _parquet(tmp_path / "p.parquet", tag=["t"], include=include, prompt=["a ring"], image=[b"x"])
    assert load_suite(path).prompts[0].checks == {"tag": "t", "include": include[0], "prompt": "a ring"}


def test_a_small_file_of_very_many_rows_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 6_000_000, pa.int8()), ["a"])
    path = _parquet(tmp_path / "p.parquet", text=column)
    assert path.stat().st_size < 100_000
    prompts = load_suite(path).prompts
    assert (len(prompts), prompts[5_999_999].id) == (6_000_000, "5999999")
    few = _write(tmp_path / "p.txt", "a\nb\nc\n")
    monkeypatch.setenv("SAR_EVAL_MAX_PROMPTS", "3")
    assert len(load_suite(few).prompts) == 3
    monkeypatch.setenv("SAR_EVAL_MAX_PROMPTS", "2")
    with pytest.raises(BadInput, match="more than 2 prompts"):
        load_suite(few)
    monkeypatch.setenv("SAR_EVAL_MAX_PROMPTS", "many")
    with pytest.raises(BadInput, match="SAR_EVAL_MAX_PROMPTS is 'many'"):
        load_suite(few)


def test_a_small_file_of_very_long_texts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sar_eval.storage.files.MAX_COLUMNS", 10_000_000)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int8()), ["a" * 10_000])
    path = _parquet(tmp_path / "p.parquet", text=column)
    assert path.stat().st_size < 10_000
    with pytest.raises(BadInput, match="over 10,000,000 bytes in text"):
        load_suite(path)


def _not_utf8() -> pa.Array:
    return pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": _not_utf8()}, "not a readable Parquet file: .*utf-8"),
        ({"text": ["a"], "tag": pa.array([2**62], pa.timestamp("ms"))}, "not a readable Parquet file"),
        ({"text": ["a"], "tag": pa.array([2**31 - 1], pa.date32())}, "not a readable Parquet file"),
        ({"text": [b"a"]}, r":1: no prompt text .*; it is b'a'"),
        ({"text": ["a\x00"]}, r":1: 'a\\x00' contains a NUL"),
        ({"text": ["a"], "id": [b"x"]}, r":1: the id must be text or a number, not b'x'"),
        ({"text": ["a"], "id": [["x"]]}, r":1: the id must be text or a number"),
        ({"text": ["a"], "checks": [{"b": float("nan")}]}, r":1: checks cannot be stored as JSON"),
        ({"text": ["a"], "checks": ["[" * 490 + "]" * 490]}, r":1, column checks: nested deeper than 64"),
        (
            {"title": ["a"], "n": [1]},
            r"p\.parquet: no column text, prompt, .*; the columns are 'title', 'n'",
        ),
        ({"text": pa.array([], pa.string())}, "has no prompts"),
    ],
)
def test_odd_parquet_is_refused(tmp_path: Path, columns: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_suite(_parquet(tmp_path / "p.parquet", **columns))


def test_columns_that_are_not_wanted_may_be_anything(tmp_path: Path) -> None:
    path = _parquet(
        tmp_path / "p.parquet", text=["a"], when=pa.array([2**62], pa.timestamp("ms")), bad=_not_utf8()
    )
    assert load_suite(path).prompts[0].text == "a"


def test_doubled_columns_of_parquet_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "p.parquet")
    with pytest.raises(BadInput, match="the column 'text' is there twice"):
        load_suite(tmp_path / "p.parquet")


@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.jsonl"])
def test_gbk_is_refused_with_the_way_on(tmp_path: Path, name: str) -> None:
    text = "text\n一只猫\n" if name == "p.csv" else "一只猫" if name == "p.txt" else '{"text": "一只猫"}'
    path = _write(tmp_path / name, text.encode("gbk"))
    with pytest.raises(BadInput, match=r"looks like GBK.*iconv -f GBK -t UTF-8"):
        load_suite(path)
    assert load_suite(path, encoding="gbk").prompts[0].text == "一只猫"
