"""PairComp's official file as a suite. The judge's question is made up here: it has no licence."""

import hashlib
import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.suites.paircomp import suite
from sar_eval.suites.paircomp.scoring import category_of
from sar_eval.suites.paircomp.source import SOURCE
from sar_eval.suites.source import Template

TEXT = '<image>\n Made up: "{prompt}", is it so?'
ROW = {"category": "Style & Tone difference", "caption1": "a calm sea", "caption2": "a wild sea"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    monkeypatch.setattr(suite, "QUESTION", Template("q", suite.PROGRAM, digest, holes={"prompt": "prompt"}))
    before, after = (repr(part) for part in TEXT.split("{prompt}"))
    (tmp_path / suite.PROGRAM).write_text(f"asked = [{before} + prompt + {after} for prompt in prompts]\n")
    (tmp_path / "prompt").mkdir()
    return tmp_path


def write(folder: Path, *rows: dict) -> Path:
    (folder / suite.DATA).write_text(json.dumps(rows))
    return folder


def test_a_pair_becomes_two_prompts_named_as_its_pictures(folder: Path) -> None:
    found = suite.import_suite(write(folder, ROW, ROW | {"category": "Text difference"}))
    assert [prompt.id for prompt in found.prompts] == ["0_0", "0_1", "1_0", "1_1"]
    assert found.counted == "in 2 pairs"
    second = found.prompts[1]
    assert (second.text, second.tag, second.checks["pair"]) == ("a wild sea", "style", "0")
    [question] = second.checks["questions"]
    assert question["text"] == ' Made up: "a wild sea", is it so?'
    assert (question["expect"], question["against"]) == (["yes", "Yes", "YES"], ["no", "No", "NO"])
    assert question["is_ratio"] is True


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"category": "Something else"}, "the category 'Something else' is none of PairComp's six"),
        ({"category": "Text color"}, "is none of"),
        ({"category": 3}, "the category 3 is none of"),
        ({"caption2": ""}, "no caption2"),
    ],
)
def test_rows_without_captions_or_category_are_refused(folder: Path, wrong: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        suite.import_suite(write(folder, ROW | wrong))


def test_categories_are_found_by_a_part_of_their_names() -> None:
    assert category_of("OVERALL APPEARANCE DIFFERENCE") == "overall"
    assert category_of("Style & Tone difference") == "style"


def test_the_source_says_that_there_is_no_licence() -> None:
    assert (SOURCE.prompts, SOURCE.licence) == (1100, "none is published")
    assert SOURCE.files[0].name.endswith("sources/paircomp/prompt/PairComp.json")
