"""Prompt files: every format is read, every error names file and line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.suites.prompts import load_suite


def _write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def test_formats_agree(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "a ring", "tag": "t"}, {"id": "b", "text": "a star, red", "tag": ""}]
    jsonl = _write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    csv = _write(tmp_path, "p.csv", 'id,text,tag\na,a ring,t\nb,"a star, red",\n')
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    suites = [load_suite(path) for path in (jsonl, csv, tmp_path / "p.parquet")]
    assert {suite.digest for suite in suites} == {suites[0].digest}
    assert [p.text for p in suites[0].prompts] == ["a ring", "a star, red"]


def test_plain_lines_are_numbered(tmp_path: Path) -> None:
    suite = load_suite(_write(tmp_path, "p.txt", "a ring\n\n  a star \n"))
    assert [(p.id, p.text) for p in suite.prompts] == [("00000", "a ring"), ("00001", "a star")]


def test_genevals_metadata_file_is_a_suite(parity: Path) -> None:
    suite = load_suite(parity / "geneval" / "evaluation_metadata.jsonl")
    assert len(suite.prompts) == 553
    assert suite.prompts[0].text == "a photo of a bench"
    assert suite.prompts[0].checks["include"] == [{"class": "bench", "count": 1}]
    assert suite.prompts[0].tag == "single_object"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", '{"text": "a"}\n{"text": \n', r"p\.jsonl:2: broken JSON"),
        ("p.jsonl", '{"text": "a"}\n[1]\n', r"p\.jsonl:2: each line must be a JSON object"),
        ("p.jsonl", '{"id": "a"}\n', r"p\.jsonl:1: no prompt text"),
        ("p.jsonl", '{"id":"a","text":"x"}\n{"id":"A","text":"y"}', "duplicate id 'A'"),
        ("p.jsonl", '{"id":["a"],"text":"x"}', r"p\.jsonl:1: the id must be text or a number, not \['a'\]"),
        (
            "p.jsonl",
            '{"id":"a","titel":"x"}',
            r"no prompt text \(.*`prompt`.*; the columns are 'id', 'titel'",
        ),
        ("p.jsonl", '{"text":[{"role":"user"}]}', r"p\.jsonl:1: no prompt text .*; it is \[\{'role'"),
        ("p.jsonl", '{"text":"a \\u0000"}', "contains a NUL character"),
        ("p.jsonl", '{"text":"a","checks":{"x":NaN}}', "NaN is no number of JSON"),
        (
            "p.jsonl",
            '{"text":"a","checks":' + "[" * 490 + "]" * 490 + "}",
            r"jsonl:1: nested deeper than 64",
        ),
        ("p.jsonl", '{"text":"a","text":"b"}', "the key 'text' is there twice"),
        ("p.csv", "text,text\na,b\n", "the column 'text' is there twice"),
        ("p.jsonl", "\n", "has no prompts"),
        ("p.csv", "id,text\na,x\nb,\n", r"p\.csv:3: no prompt text"),
        ("p.yaml", "x", "a prompt file ends in"),
        ("p.parquet", "x", "not a readable Parquet file"),
        ("p.jsonl", '\n{"text": "a \\ud800 ring"}', r"p\.jsonl:2: contains a lone surrogate"),
        ("p.jsonl", '{"text": "a", "tag": "\\udfff"}', r"p\.jsonl:1: contains a lone surrogate"),
        (
            "p.jsonl",
            '{"text": "a", "checks": {"q": ["\\ud800"]}}',
            r"p\.jsonl:1: contains a lone surrogate",
        ),
        ("p.jsonl", '{"text": "a", "checks": 3}', r"p\.jsonl:1: checks must be an object or a list, not 3"),
        ("p.jsonl", '{"text": "a", "n": ' + "9" * 5000 + "}", r"p\.jsonl:1: unusable JSON"),
        ("p.csv", "text,checks\na,{\n", r"p\.csv:2, column checks: broken JSON"),
        ("p.csv", "text,checks\na,true\n", r"p\.csv:2: checks must be an object or a list, not True"),
        ("p.csv", "id,text\na,x, y\n", r"p\.csv:2: more cells than columns"),
        ("p.csv", 'id,text\na,"x\nb,y\n', r"p\.csv:2: broken CSV: unexpected end of data"),
        ("p.csv", "id,text\na," + "x" * 140_000 + "\n", r"p\.csv:2: broken CSV: field larger than"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_suite(_write(tmp_path, name, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("p.txt", "p.parquet"):
        with pytest.raises(BadInput, match=f"no file .*{name}"):
            load_suite(tmp_path / name)


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").mkdir()
    (tmp_path / "._a.txt").write_text("a Mac's")
    for path in (tmp_path / "p.jsonl", tmp_path):
        with pytest.raises(BadInput, match=r"is a directory without prompts: .* ID\.txt"):
            load_suite(path)


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, name, "x")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")  # file modes would not stop root

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(BadInput, match=rf"{name}.*Permission denied"):
        load_suite(path)


def test_json_lines_end_at_newlines_only(tmp_path: Path) -> None:
    texts = ["a ring\u2028below a star", "a ring\x85", "a\u2029 star"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    suite = load_suite(_write(tmp_path, "p.jsonl", "\r\n".join(lines) + "\r\n"))
    assert [p.text for p in suite.prompts] == texts


def test_a_csv_cell_may_hold_newlines(tmp_path: Path) -> None:
    text = 'id,text,checks\r\na,"two\r\nrings",\r\n\r\nb,"a\nstar","{""q"": [1]}"\r\n'
    suite = load_suite(_write(tmp_path, "p.csv", text))
    assert [p.text for p in suite.prompts] == ["two\r\nrings", "a\nstar"]
    assert [p.checks for p in suite.prompts] == [None, {"q": [1]}]


def test_errors_name_the_first_line_of_a_csv_row(tmp_path: Path) -> None:
    path = _write(tmp_path, "p.csv", 'id,text\na,"two\nrings"\n\nb,"a\n\nstar",3\n')
    with pytest.raises(BadInput, match=r"p\.csv:5: more cells"):
        load_suite(path)


RING = {"class": "ring", "count": 1}


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ({"include": {}}, "include must be a list of objects"),
        ({"include": ["ring"]}, r"include\[0\] must be an object with class and count, not 'ring'"),
        ({"include": [{"count": 1}]}, r"include\[0\] needs a class"),
        ({"include": [RING, RING | {"class": " "}]}, r"include\[1\] needs a class"),
        ({"include": [RING | {"count": 0}]}, r"include\[0\] needs a count .*, not 0"),
        ({"include": [RING | {"count": True}]}, r"include\[0\] needs a count .*, not True"),
        ({"include": [RING | {"count": 1.0}]}, r"include\[0\] needs a count .*, not 1\.0"),
        ({"include": [RING | {"color": 3}]}, r"include\[0\] has a color that is not a name: 3"),
        ({"include": [RING, RING | {"position": "above"}]}, r"include\[1\] has a position that is not \["),
        ({"include": [RING, RING | {"position": ["above"]}]}, r"include\[1\] has a position that is not"),
        ({"include": [RING, RING | {"position": ["on", 0]}]}, "is none of left of, right of, above, below"),
        ({"include": [RING, RING | {"position": ["above", 1]}]}, r"include\[1\] .* relative to 1: give"),
        ({"include": [RING, RING | {"position": ["above", -1]}]}, "an earlier entry of include"),
        ({"include": [RING, RING | {"position": ["above", False]}]}, "an earlier entry of include"),
        ({"include": [RING], "exclude": RING}, "exclude must be a list of objects"),
        ({"include": [RING], "exclude": [{"class": "star"}]}, r"exclude\[0\] needs a count"),
    ],
)
def test_invalid_geneval_checks_are_refused(tmp_path: Path, checks: dict, message: str) -> None:
    valid, metadata = {"text": "a ring"}, {"prompt": "a ring", **checks}
    for row in ({"text": "a ring", "checks": checks}, metadata):
        path = _write(tmp_path, "p.jsonl", json.dumps(valid) + "\n" + json.dumps(row))
        with pytest.raises(BadInput, match=rf"p\.jsonl:2: .*{message}"):
            load_suite(path)


@pytest.mark.parametrize("checks", [{}, {"questions": ["a?"]}, ["a?"], {"include": [RING]}])
def test_checks_of_any_benchmark_are_accepted(tmp_path: Path, checks: object) -> None:
    path = _write(tmp_path, "p.jsonl", json.dumps({"text": "a ring", "checks": checks}))
    assert load_suite(path).prompts[0].checks == checks


def test_parquet_structs_equal_json_objects(tmp_path: Path) -> None:
    star = {"class": "star", "count": 2, "color": "red"}
    rows = [
        {"text": "a ring", "checks": {"include": [RING]}},
        {"text": "stars", "checks": {"include": [star], "exclude": [{"class": "star", "count": 3}]}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")  # fills in color and exclude: None
    jsonl = _write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    suite = load_suite(tmp_path / "p.parquet")
    assert suite.prompts[0].checks == {"include": [RING]}
    assert suite.digest == load_suite(jsonl).digest


def test_parquet_checks_that_are_not_json_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"text": "a", "checks": {"b": b"x"}}]), tmp_path / "p.parquet")
    with pytest.raises(BadInput, match=r"p\.parquet:1: checks cannot be stored as JSON"):
        load_suite(tmp_path / "p.parquet")
