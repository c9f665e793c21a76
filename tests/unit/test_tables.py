"""The one reader of tables: what people's tools write is read, or refused with the way on."""

import codecs
import os
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.tables import read_rows


def _read(path: Path, data: str | bytes, **options) -> tuple[list, list[str]]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    notes: list[str] = []
    return list(read_rows(path, notes=notes, **options)), notes


TABLE = [(2, {"id": "1", "prompt": "a, b"}), (3, {"id": "2", "prompt": "c"})]


@pytest.mark.parametrize(
    ("name", "data", "note"),
    [
        ("p.csv", 'id,prompt\n1,"a, b"\n2,c\n', ""),
        ("p.CSV", 'id , prompt\r\n1,"a, b"\r\n2,c\r\n,,\r\n\r\n , \r\n', ""),
        ("p.csv", "\ufeffid;prompt\n1;a, b\n2;c", "cells are separated by semicolons"),
        ("p.csv", "id\tprompt\n1\ta, b\n2\tc", "cells are separated by tabs"),
        ("p.csv", "id|prompt\n1|a, b\n2|c", "cells are separated by bars"),
        ("p.tsv", "id\tprompt\n1\ta, b\n2\tc", ""),
        ("p.tsv", 'id,prompt\n1,"a, b"\n2,c\n', "cells are separated by commas"),
        ("p.csv", ',id,prompt\n0,1,"a, b"\n1,2,c', "a column without a name is ignored"),
        ("p.csv", 'id,prompt,\n1,"a, b",\n2,c,', ""),
        ("p.csv", codecs.BOM_UTF8 + b'id,prompt\n1,"a, b"\n2,c\n', ""),
        ("p.csv", 'id,prompt\n1,"a, b"\n2,c\n'.encode("utf-16"), "read as UTF-16"),
        ("p.csv", codecs.BOM_UTF16_BE + "id\tprompt\n1\ta, b\n2\tc".encode("utf-16-be"), "read as UTF-16"),
        ("p.csv", 'id,prompt\n1,"a, b"\n2,c\n'.encode("utf-32"), "read as UTF-32"),
        ("p.jsonl", '\n{"id": "1", "prompt": "a, b"}\n{"id": "2", "prompt": "c"}', ""),
        ("p.json", '\n[{"id": "1", "prompt": "a, b"},\n{"id": "2", "prompt": "c"}]\n', ""),
        ("p.json", '\n{"id": "1", "prompt": "a, b"}\n{"id": "2", "prompt": "c"}', "read as JSON Lines"),
        ("p.jsonl", '[\n{"id": "1", "prompt": "a, b"},\n{"id": "2", "prompt": "c"}]', "one JSON array"),
    ],
)
def test_one_table_in_many_forms(tmp_path: Path, name: str, data: str | bytes, note: str) -> None:
    rows, notes = _read(tmp_path / name, data)
    assert rows == TABLE
    assert (note in " ".join(notes)) if note else notes == []


def test_a_spreadsheets_separator_line_is_no_header(tmp_path: Path) -> None:
    rows, _ = _read(tmp_path / "p.csv", "sep=;\r\nid;prompt\r\n1;a, b\r\n")
    assert rows == [(3, {"id": "1", "prompt": "a, b"})]


@pytest.mark.parametrize(("name", "data"), [("p.txt", " a \n\nb"), ("p.json", '["a",\n\n"b"]')])
def test_texts_alone_are_a_column(tmp_path: Path, name: str, data: str) -> None:
    assert _read(tmp_path / name, data)[0] == [(1, {"text": "a"}), (3, {"text": "b"})]


def test_lines_are_those_where_rows_begin(tmp_path: Path) -> None:
    rows, _ = _read(tmp_path / "p.csv", 'id,p\r\n1,"two\r\nlines"\r\n\r\n2,"a\nb\n"\r\n3,c')
    assert rows == [
        (2, {"id": "1", "p": "two\r\nlines"}),
        (5, {"id": "2", "p": "a\nb\n"}),
        (8, {"id": "3", "p": "c"}),
    ]


@pytest.mark.parametrize(
    ("data", "texts", "noted"),
    [
        ('p\tc\n"Deep" words\tX\na "b"\tY', ['"Deep" words', 'a "b"'], True),
        ('p\tc\n"Deep\tX\nb"\tY', ['"Deep', 'b"'], True),  # as quotes they would swallow a row
        ('p\tc\n"Deep" words\nb\tX', ['"Deep" words', "b"], True),  # the last cell may be left out
        ('p\tc\n"a\nb"\tX', ["a\nb"], False),
        ('p\tc\n"a\tb"\tX\n"c ""d"""\tY', ["a\tb", 'c "d"'], False),
    ],
)
def test_quotes_of_tsv_may_be_text(tmp_path: Path, data: str, texts: list[str], noted: bool) -> None:
    rows, notes = _read(tmp_path / "p.tsv", data)
    assert [row["p"] for _, row in rows] == texts
    assert ["quotes are taken as part of the text" in note for note in notes] == [True] * noted


@pytest.mark.parametrize(
    ("text", "codec", "looks"),
    [
        ("一只猫", "gbk", "GBK"),  # is UTF-8 by chance
        ("一只黑色的猫坐在桌子上", "gbk", "GBK"),
        ("高兴", "gbk", "GBK"),
        ("猫が座っている", "cp932", "Shift-JIS"),
        ("猫が座る", "euc_jp", "EUC-JP"),
        ("고양이가 앉아", "euc-kr", "EUC-KR"),
        ("一隻貓坐在桌上", "big5", "Big5"),
        ("一只𠮷猫在桌子上", "gb18030", "GB18030"),
        ("кошка сидит", "cp1251", "CP1251"),
        ("Кошка сидит на красном столе", "cp1251", "CP1251"),
        ("СОБАКА И КОШКА", "cp1251", "CP1251"),
        ("Кошка сидит на красном столе", "koi8-r", "KOI8-R"),
        ("κόκκινη γάτα στο τραπέζι", "cp1253", "CP1253"),
        ("חתול אדום על השולחן", "cp1255", "CP1255"),
        ("בית לבן", "cp1255", "CP1255"),
        ("قطة حمراء على الطاولة", "cp1256", "CP1256"),
        ("un café déjà vu", "latin-1", "Latin-1"),
        ("Mädchen auf dem Fluß", "latin-1", "Latin-1"),
        ("a “café”", "cp1252", "CP1252"),
        ("a cat", "utf-16-le", "UTF-16LE"),
        ("a cat", "utf-16-be", "UTF-16BE"),
    ],
)
@pytest.mark.parametrize("name", ["p.csv", "p.txt", "p.jsonl"])
def test_other_encodings_are_named(tmp_path: Path, text: str, codec: str, looks: str, name: str) -> None:
    whole = {"p.csv": f"id,prompt\n1,{text}\n", "p.txt": text, "p.jsonl": f'{{"text": "{text}"}}'}[name]
    with pytest.raises(BadInput, match=rf"p\.\w+.* looks like {looks}.*`iconv -f \S+ -t UTF-8 {name} > p-"):
        _read(tmp_path / name, whole.encode(codec))


@pytest.mark.parametrize(
    "text",
    [
        "un café è così",
        "Привет, мир",
        "κόσμος",
        "一只猫",
        "猫が座っている",
        "고양이",
        "שלום",
        "née Müller",
        "a £ or £",
    ],
)
def test_utf8_is_not_doubted(tmp_path: Path, text: str) -> None:
    assert _read(tmp_path / "p.txt", text) == ([(1, {"text": text})], [])


def test_doubtful_utf8_is_noted(tmp_path: Path) -> None:
    rows, notes = _read(tmp_path / "p.txt", "猫".encode("gbk"))
    assert rows == [(1, {"text": "è"})]
    assert len(notes) == 1
    assert "would be '猫' in GBK; it is read as UTF-8" in notes[0]


def test_an_encoding_may_be_given(tmp_path: Path) -> None:
    assert _read(tmp_path / "p.txt", "一只猫".encode("gbk"), encoding="gbk")[0] == [(1, {"text": "一只猫"})]
    with pytest.raises(BadInput, match=r"p\.txt:2: not GBK"):
        _read(tmp_path / "p.txt", b"a\n\xff\xff", encoding="gbk")
    for name in ("klingon", "rot13"):
        with pytest.raises(BadInput, match=f"no encoding '{name}'"):
            _read(tmp_path / "p.txt", "a", encoding=name)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.csv", "a;b;c\n1;2;3", r"p\.csv:1: no column 'file'; the columns are 'a', 'b', 'c'"),
        ("p.csv", "", r"p\.csv:1: no column 'file'; the columns are none"),
        ("p.jsonl", '{"file": "a"}\n{"b": 1, "c": 2}', r"p\.jsonl:2: no column 'file'; .* 'b', 'c'"),
        ("p.txt", "a", r"p\.txt: no column 'file' in lines of text"),
        ("p.csv", "\ufeff\ufefffile,a,a\n1,2,3", r"p\.csv:1: the column 'a' is there twice"),
        ("p.csv", "file,a, a \n1,2,3", r"p\.csv:1: the column 'a' is there twice"),
        ("p.csv", "file,b\n1,2,3", r"p\.csv:2: more cells than columns: quote texts that contain commas"),
        ("p.csv", 'file,b\n1,"x\n\n2,y', r"p\.csv:2: broken CSV: unexpected end"),
        ("p.csv", 'file,b\n\n1,"x"y\n', r"p\.csv:3: broken CSV"),
        ("p.csv", "file,b\n1," + "x" * 131_073, r"p\.csv:2: broken CSV: field larger than"),
        ("p.csv", "file\na\x00b", r"p\.csv:2: contains a NUL character"),
        ("p.csv", b"\xff\xfef", "not UTF-16.*truncated"),
        ("p.csv", b"\xff\xfe" + b"a\x00\x00\xd8a\x00", "not UTF-16"),
        ("p.txt", b"a \xed\xa0\x80", r"p\.txt:1: not UTF-8"),
        ("p.txt", bytes(range(256)), "is it a text file"),
        ("p.csv", b"PK\x03\x04abc", "is a ZIP file"),
        ("p.txt", b"\x1f\x8b\x08", "compressed by gzip"),
        ("p.csv", b"PAR1abc", "is a Parquet file: name it"),
        ("p.csv", b"\n<!DOCTYPE html><p>log in", "is an HTML page"),
        ("p.csv", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("p.xlsx", b"", "a table ends in .csv"),
        ("p.jsonl", '{"file": 1}\n[1]', r"p\.jsonl:2: each line must be a JSON object or text, not \[1\]"),
        ("p.json", '[{"file": 1},\n3]', r"p\.json:2: each entry must be a JSON object or text, not 3"),
        ("p.json", '[{"file": 1},\n {"file": 1, "file": 2}]', r"p\.json:2: .*'file' is there twice"),
        (
            "p.json",
            '[{"file": 1},\n\n {"file": }]',
            r"p\.json:3: broken JSON: Expecting value at column 11",
        ),
        ("p.json", '[{"file": 1}', r"p\.json:1: broken JSON: expected a comma"),
        ("p.json", "[1,]", r"p\.json:1: each entry"),
        ("p.json", '[{"file": 1}] 2', "something follows the array"),
        ("p.json", '{\n"file": 1}', "one array"),
        ("p.json", "[" * 100_000, "nested too deep"),
        ("p.json", '[{"file": ' + "[" * 70 + "]" * 70 + "}]", r"p\.json:1: nested deeper than 64"),
        ("p.jsonl", '{"file": ' + "[" * 9999, r"p\.jsonl:1: nested deeper than 64"),
        ("p.jsonl", '{"file": ' + "9" * 5000 + "}", r"p\.jsonl:1: unusable JSON: a whole number of 5000"),
        ("p.jsonl", '{"file": NaN}', r"p\.jsonl:1: unusable JSON: NaN"),
        ("p.jsonl", '{"file": 1}\n{"file": "\\ud800"}', r"p\.jsonl:2: contains a lone surrogate"),
        ("p.jsonl", '{"file": "\\u0000"}', r"p\.jsonl:1: .* contains a NUL character"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        _read(tmp_path / name, data, required=("file",))


def test_lines_of_text_that_look_like_something_else(tmp_path: Path) -> None:
    rows, notes = _read(tmp_path / "p.txt", "id\tprompt\n1\ta")
    assert rows[1] == (2, {"text": "1\ta"})
    assert "a table's name ends in .tsv" in notes[0]
    with pytest.raises(BadInput, match=r"p\.txt:1: carriage returns inside a line"):
        _read(tmp_path / "p.txt", "a ring\ra star\r")
    assert len(_read(tmp_path / "p.csv", "text\ra ring\ra star\r")[0]) == 2


def test_a_column_may_differ_in_case(tmp_path: Path) -> None:
    for name, data in (("p.csv", "id; File \n1;a.png"), ("p.jsonl", '\n{"id": "1", "File": "a.png"}')):
        assert _read(tmp_path / name, data, required=("file",))[0] == [(2, {"id": "1", "file": "a.png"})]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")  # reading it would wait for ever
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    for name in ("pipe.csv", "folder.csv", "loop.csv", "nowhere.csv", "a\x00.csv", "x" * 300 + ".csv"):
        with pytest.raises(BadInput):
            list(read_rows(tmp_path / name, notes=[]))


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_eval.encodings.MAX_LINE", 1000)
    with pytest.raises(BadInput, match="has a line of over 1,000 bytes"):
        _read(tmp_path / "p.txt", "x" * 3_000_000)
