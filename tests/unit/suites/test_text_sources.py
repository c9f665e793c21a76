"""Suites of TIIF-Bench, OneIG-Bench, LongText-Bench, UniGenBench from made-up files in official form."""

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sar_eval.errors import BadInput
from sar_eval.suites.oneig import source as oneig_source
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.rubric.template import fill
from sar_eval.suites.source import Template, load, to_lines
from sar_eval.suites.tiif.scoring import TYPES

PROGRAM = '''
TEXTS = {"Style": "how it looks", "Action - Animal": "what it does"}
CHINESE = {"\u98ce\u683c": "\u753b"}

def ask(prompt):
    explanation = "Meaning:\u300c"
    test_explanation = "In this prompt:\u300c"
    zh = ["\u542b\u4e49\uff1a\u300c", "\u63cf\u8ff0\uff1a\u300c"]
    return f"""Look.
Prompt:\u300c{prompt}\u300d"""
'''


def _write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _table(path: Path, header: list[str], *rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _stored(suite: str, source: Path, tmp_path: Path) -> tuple:
    """The prompts as a run reads them from the suite file."""
    (tmp_path / f"{suite}.jsonl").write_bytes(to_lines(load(suite).convert(source).prompts))
    return load_suite(tmp_path / f"{suite}.jsonl").prompts


@pytest.fixture
def tiif(tmp_path: Path) -> Path:
    files = {}
    for kind in TYPES:
        rows = [{"type": kind, "short_description": "a cat", "long_description": f"a cat, {kind}"}]
        asked = [{"type": kind, "yn_question_list": ["Is it?  ", "So?"], "yn_answer_list": ["yes", " No"]}]
        files[f"data/testmini_prompts/{kind}_prompts.jsonl"] = _jsonl(*rows)
        files[f"data/testmini_eval_prompts/{kind}_eval_prompts.jsonl"] = _jsonl(*asked)
    return _write(tmp_path / "official", files)


def test_tiif(tiif: Path, tmp_path: Path) -> None:
    prompts = _stored("tiif", tiif, tmp_path)
    assert len(prompts) == 78
    assert len({prompt.id for prompt in prompts}) == 78
    short, long = prompts[:2]
    assert (short.text, short.tag, short.split) == ("a cat", "shape+color", "short")
    assert (long.text, long.checks["length"]) == ("a cat, shape+color", "long")
    assert short.checks["questions"] == ["Is it?", "So?"]
    assert short.checks["answers"] == ["yes", "no"]
    assert fill("Questions:\n{questions}", short) == "Questions:\nIs it?\nSo?"


def test_tiif_files_that_do_not_fit_are_named(tiif: Path) -> None:
    asked = tiif / "data/testmini_eval_prompts/style_eval_prompts.jsonl"
    good = asked.read_text()
    asked.write_text(good * 2)
    with pytest.raises(BadInput, match=r"style_eval_prompts.jsonl has 2 lines, and its prompts have 1"):
        load("tiif").convert(tiif)
    asked.write_text(good.replace("style", "text"))
    with pytest.raises(BadInput, match=r"style_eval_prompts.jsonl:1: type 'text' in the file of 'style'"):
        load("tiif").convert(tiif)
    asked.write_text(good.replace("yn_question_list", "questions"))
    with pytest.raises(BadInput, match=r"style_eval_prompts.jsonl:1, yn_question_list"):
        load("tiif").convert(tiif)
    asked.unlink()
    with pytest.raises(BadInput, match=r"no .*style_eval_prompts.jsonl"):
        load("tiif").convert(tiif)


def test_tiif_asks_for_79_files_and_two_texts() -> None:
    source = load("tiif")
    assert len({file.url for file in source.files}) == 79
    assert all("+" not in file.url for file in source.files)
    assert [template.name for template in source.templates] == ["system", "user"]


@pytest.mark.parametrize(("suite", "file"), [("longtext", ""), ("longtext_zh", "_zh")])
def test_longtext(suite: str, file: str, tmp_path: Path) -> None:
    row = {
        "prompt_id": 7,
        "category": "Sign",
        "length": "short",
        "prompt": "a sign",
        "text": ["tea", "sea"],
    }
    source = _write(tmp_path / "textbench", {f"text_prompts{file}.jsonl": _jsonl(row)})
    (prompt,) = _stored(suite, source, tmp_path)
    assert (prompt.id, prompt.text, prompt.tag, prompt.split) == ("0007", "a sign", "Sign", "short")
    assert prompt.checks == {"text": ["tea", "sea"], "language": "zh" if file else "en"}
    alone = load(suite).convert(source / f"text_prompts{file}.jsonl")
    assert alone.prompts[0] == prompt


def test_longtext_without_words_is_named(tmp_path: Path) -> None:
    row = {"prompt_id": 7, "prompt": "a sign", "text": ["?!"]}
    source = _write(tmp_path, {"text_prompts.jsonl": _jsonl({**row, "text": ["tea"]}, row)})
    with pytest.raises(BadInput, match=r"text_prompts.jsonl:2: no letter or digit of its text"):
        load("longtext").convert(source)


@pytest.fixture
def oneig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a made-up end of every question: the real one is not ours."""
    folder = tmp_path / "official"
    digest = hashlib.sha256(b". Say so.").hexdigest()
    monkeypatch.setattr(oneig_source, "SUFFIX", Template("suffix", oneig_source.JUDGE, digest))
    _write(folder, {oneig_source.JUDGE: 'def ask(question):\n    return f"{question}. Say so."\n'})
    for table, column in (("OneIG-Bench.csv", "prompt_en"), ("OneIG-Bench-ZH.csv", "prompt_cn")):
        names = ["Anime_Stylization", "Portrait", "General_Object", "Multilingualism", "Text_Rendering"]
        _table(folder / table, ["category", "id", column], *([n, "000", f"a {n}"] for n in names))
    asked = {"question": {"1": "A cat?", "2": "Black?"}, "dependency": {"1": [0], "2": [1]}}
    as_text = {key: json.dumps(value) for key, value in asked.items()}
    for kind in ("anime", "human", "object"):
        _write(folder, {f"scripts/alignment/Q_D/{kind}.json": json.dumps({"000": asked})})
    for kind in ("anime", "human", "object", "multilingualism"):
        _write(folder, {f"scripts/alignment/Q_D/{kind}_zh.json": json.dumps({"000": as_text})})
    for end in ("", "_zh"):
        _table(folder / f"scripts/text/text_content{end}.csv", ["id", "text_content"], ["000", "tea, sea"])
    return folder


@pytest.mark.parametrize(("suite", "number"), [("oneig", 3), ("oneig_zh", 4)])
def test_oneig_alignment(suite: str, number: int, oneig: Path, tmp_path: Path) -> None:
    prompts = _stored(suite, oneig, tmp_path)
    assert len(prompts) == number
    assert (prompts[0].id, prompts[0].text, prompts[0].tag) == ("anime_000", "a Anime_Stylization", "anime")
    questions = prompts[0].checks["questions"]
    assert [(q["id"], q["text"], q["parents"]) for q in questions] == [
        (1, "A cat?. Say so.", []),
        (2, "Black?. Say so.", [1]),
    ]


def test_oneig_needs_the_script_for_the_end_of_its_questions(oneig: Path) -> None:
    (oneig / oneig_source.JUDGE).write_text("")
    with pytest.raises(BadInput, match=r"inference.py: no text in it has the SHA-256 of the template"):
        load("oneig").convert(oneig)
    (oneig / oneig_source.JUDGE).unlink()
    with pytest.raises(BadInput, match=r"inference.py, which holds the template 'suffix'"):
        load("oneig").convert(oneig)
    assert {file.name for file in load("oneig_zh").files} >= {f"sources/oneig_zh/{oneig_source.JUDGE}"}


def test_oneig_refuses_what_the_script_stops_at(oneig: Path) -> None:
    path = oneig / "scripts/alignment/Q_D/human.json"
    for entry, message in (
        ({"question": {"1": "A?"}, "dependency": {"2": [1]}}, "a dependency of question 2, which does not"),
        ({"question": {"one": "A?"}, "dependency": {}}, "'one' is no number of a question"),
        ({"question": ["A?"], "dependency": {}}, "human.json, 000, question"),
        ({"question": "{", "dependency": {}}, "human.json, 000, question"),
    ):
        path.write_text(json.dumps({"000": entry}))
        with pytest.raises(BadInput, match=message):
            load("oneig").convert(oneig)
    path.write_text(json.dumps({"001": {"question": {"1": "A?"}, "dependency": {}}}))
    with pytest.raises(BadInput, match=r"the table of prompts has no prompt '001' of the class 'human'"):
        load("oneig").convert(oneig)


@pytest.mark.parametrize(("suite", "language"), [("oneig_text", "en"), ("oneig_text_zh", "zh")])
def test_oneig_text(suite: str, language: str, oneig: Path, tmp_path: Path) -> None:
    (prompt,) = _stored(suite, oneig, tmp_path)
    assert (prompt.id, prompt.text) == ("text_000", "a Text_Rendering")
    assert prompt.checks == {"text": "tea, sea", "language": language}


def _unigen(folder: Path, dimensions: list[str], program: str = PROGRAM) -> Path:
    _write(folder, {"eval/src/eval_common.py": program})
    points = {"Testpoints": dimensions, "Testpoint Description": [f"see {d}" for d in dimensions]}
    chinese = {"\u8003\u70b9": ["\u98ce\u683c"], "\u8003\u70b9\u5bf9\u5e94\u63cf\u8ff0": ["\u6cb9\u753b"]}
    for language, sub in (("en", points), ("zh", chinese)):
        header = ["index", f"prompt_{language}", f"sub_dims_{language}"]
        _table(folder / f"data/test_prompts_{language}.csv", header, ["3", "a cat", json.dumps(sub)])
    return folder


def test_unigenbench(tmp_path: Path) -> None:
    source = _unigen(tmp_path / "official", ["Action - Animal", "Style"])
    (prompt,) = _stored("unigenbench", source, tmp_path)
    assert (prompt.id, prompt.text) == ("3", "a cat")
    assert prompt.checks["testpoint"] == "['Action - Animal', 'Style']"
    assert prompt.checks["explanation"] == (
        "Meaning:\u300c\nAction - Animal: what it does\nStyle: how it looks\n\u300d"
    )
    assert prompt.checks["test_explanation"] == (
        "In this prompt:\u300c\nAction - Animal: see Action - Animal\nStyle: see Style\n\u300d"
    )
    (chinese,) = _stored("unigenbench_zh", source, tmp_path)
    assert chinese.checks["explanation"] == "\u542b\u4e49\uff1a\u300c\n\u98ce\u683c: \u753b\n\u300d"


def test_unigenbench_of_another_version_is_told(tmp_path: Path) -> None:
    source = _unigen(tmp_path, ["Colour"])
    with pytest.raises(
        BadInput, match=r"test_prompts_en.csv:2: the judge's texts do not define .*'Colour'"
    ):
        load("unigenbench").convert(source)
    _unigen(tmp_path, ["Style"], "def (")
    with pytest.raises(BadInput, match=r"eval_common.py is no readable Python file"):
        load("unigenbench").convert(source)
    _unigen(tmp_path, ["Style"], "TEXTS = {'Style': 'it'}")
    with pytest.raises(BadInput, match=r"eval_common.py has 0 headers of lists for 'en', not 2"):
        load("unigenbench").convert(source)
