"""GenEval 2's official file as a suite. The end of every question is made up: the real one is not ours."""

import hashlib
import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.suites.geneval2 import suite
from sar_eval.suites.geneval2.source import SOURCE
from sar_eval.suites.geneval2.spellings import NO, YES
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.source import Template, to_lines

ENDING = " Be brief."
ROW = {
    "prompt": "two wooden robots",
    "atom_count": 3,
    "vqa_list": [["How many robots are there?", "two"], ["Are they wooden?", "Yes"]],
    "skills": ["count", "attribute"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    digest = hashlib.sha256(ENDING.encode()).hexdigest()
    monkeypatch.setattr(suite, "SUFFIX", Template("suffix", suite.PROGRAM, digest))
    (tmp_path / suite.PROGRAM).write_text(f'def ask(question):\n    return f"{{question}}{ENDING}"\n')
    return tmp_path


def write(folder: Path, *rows: dict) -> Path:
    (folder / suite.DATA).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_row_becomes_a_prompt_whose_questions_list_their_answers(folder: Path, tmp_path: Path) -> None:
    found = suite.import_suite(write(folder, ROW, ROW))
    assert (found.notes, found.counted) == ((), "with 4 questions")
    first, second = found.prompts
    assert (first.id, second.id, first.text, first.tag) == ("000", "001", ROW["prompt"], "atomicity 3")
    assert first.checks["atom_count"] == 3
    count, wood = first.checks["questions"]
    assert count["text"] == "How many robots are there? Be brief."
    assert (count["category"], count["expect"]) == ("count", ["two", "Two", " two", " Two", "2", " 2"])
    assert "four" in count["against"]
    assert not set(count["against"]) & set(count["expect"])
    assert (tuple(wood["expect"]), tuple(wood["against"])) == (YES, NO)
    (tmp_path / "suite.jsonl").write_bytes(to_lines(found.prompts))
    assert tuple(load_suite(tmp_path / "suite.jsonl").prompts) == found.prompts


def test_what_the_official_analysis_dies_of_is_a_note(folder: Path) -> None:
    found = suite.import_suite(write(folder, ROW | {"atom_count": 11, "skills": ["count", "style"]}))
    assert [note.partition(": ")[2][:20] for note in found.notes] == [
        "atom_count 11: the o",
        "the skill 'style' is",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": " "}, ":1: no prompt"),
        ({"atom_count": "3"}, ":1: atom_count '3' must be a whole number"),
        ({"vqa_list": []}, ":1: vqa_list must be a list"),
        ({"vqa_list": [["Is it?"]], "skills": ["object"]}, "is no .question, answer."),
        ({"skills": ["count"]}, "one entry for each of 2 questions"),
        ({"skills": ["count", ""]}, "the skill '' is no name"),
        (
            {"vqa_list": [["How many?", "eleven"]], "skills": ["count"]},
            "'eleven' is no number from one to ten",
        ),
        ({"vqa_list": [["Is it?", "No"]], "skills": ["object"]}, "the answer 'No' of 'Is it"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_with_their_line(
    folder: Path, wrong: dict, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        suite.import_suite(write(folder, ROW | wrong))


def test_another_version_of_the_script_is_refused(tmp_path: Path) -> None:
    (tmp_path / suite.PROGRAM).write_text('ending = " Say it in a word."\n')
    with pytest.raises(BadInput, match="no text in it has the SHA-256 of the template 'suffix'"):
        suite.import_suite(write(tmp_path, ROW))
    (tmp_path / suite.PROGRAM).unlink()
    with pytest.raises(BadInput, match=r"no .*evaluation\.py, which holds the template 'suffix'"):
        suite.import_suite(tmp_path)


def test_the_source_names_its_licence_and_pins_a_commit() -> None:
    assert (SOURCE.prompts, SOURCE.licence) == (800, "CC BY-NC 4.0")
    assert all("/a6e82d2289e8d418f27f0adee77908b07060eea3/" in file.url for file in SOURCE.files)
