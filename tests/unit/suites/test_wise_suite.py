"""WISE's files become a suite; all rows and texts here are made up."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.suites import source as sources
from sar_eval.suites.cut_templates import cut
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.source import Template
from sar_eval.suites.wise.official import LEGACY, VERIFIED
from sar_eval.suites.wise.source import HOLES

PROGRAM = '''
def messages(prompt_data):
    return [f"""Drawn for {prompt_data['Prompt']}, as {prompt_data['Explanation']}."""]
'''


def row(number: int, **changes: Any) -> dict[str, Any]:
    texts = {"Prompt": f"thing {number}", "Explanation": f"because {number}", "Category": "c"}
    return {**texts, "Subcategory": "s", "prompt_id": number, **changes}


def write(folder: Path, suite: str, *rows_of_files: list[Any]) -> Path:
    """A folder with a suite's official files; rows of files that are not given are empty lists."""
    files = [file.name.removeprefix(f"sources/{suite}/") for file in sources.load(suite).files]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(PROGRAM if name.endswith(".py") else "[]")
    for name, rows in zip(files, rows_of_files, strict=False):
        (folder / name).write_text(json.dumps(rows))
    return folder


@pytest.mark.parametrize(
    ("suite", "form", "second"), [("wise", VERIFIED, 521), ("wise_legacy", LEGACY, 568)]
)
def test_the_official_folder_is_imported(
    sar_eval_here, tmp_path: Path, monkeypatch, suite: str, form: Any, second: int
) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    thousand = [row(number) for number in range(1, 1001)]
    folder = write(tmp_path / "WISE", suite, thousand[:400], thousand[400:700], thousand[700:])
    code, output = sar_eval_here("prompts", "import", suite, "--from", folder)
    assert code == 0, output
    prompts = load_suite(tmp_path / "cache" / f"{suite}.jsonl").prompts
    assert [prompt.id for prompt in prompts] == [str(number) for number in range(1, 1001)]
    assert prompts[6].text == "thing 7"
    assert prompts[6].checks == {"explanation": "because 7", "subcategory": "s"}
    assert [p.tag.upper() for p in prompts] == [form.category(number) for number in range(1, 1001)]
    assert (prompts[second - 2].tag, prompts[second - 1].tag) == ("time", "space")
    # Made-up texts have other checksums: said, and not stored.
    assert f"the judge's text {suite}/user was not stored" in output
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "1.png")
    code, output = sar_eval_here("score", suite.replace("_", "-"), "--images", tmp_path / "images")
    assert code == 2
    assert f"templates/{suite}/user.txt: `sar-eval prompts fetch {suite}`" in "".join(output.split("\n"))


def test_missing_ids_are_a_note(tmp_path: Path) -> None:
    source = sources.load("wise")
    imported = source.convert(write(tmp_path, "wise", [row(2)], [], [row(1000)]))
    assert [prompt.id for prompt in imported.prompts] == ["2", "1000"]
    assert imported.notes == ("998 of the ids 1 to 1,000 are missing, 1 first",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": 1}, "must be a list of prompts"),
        ([1], "row 1 must be an object, not 1"),
        ([row(1), row(2, prompt_id="2")], "row 2: prompt_id is '2': it must be a number from 1 to 1,000"),
        ([row(1, prompt_id=True)], "row 1: prompt_id is True"),
        ([row(0)], "row 1: prompt_id is 0"),
        ([row(1001)], "row 1: prompt_id is 1001"),
        ([row(1, Prompt=" ")], "row 1: Prompt is ' ': it must be a text"),
        ([row(1, Explanation=None)], "row 1: Explanation is None: it must be a text"),
        ([row(1), row(1)], "row 2: prompt_id 1 is there twice"),
    ],
)
def test_a_row_that_cannot_be_names_file_and_row(tmp_path: Path, rows: Any, message: str) -> None:
    folder = write(tmp_path, "wise", rows)
    with pytest.raises(BadInput, match=message) as caught:
        sources.load("wise").convert(folder)
    assert "cultural_common_sense_verified.json" in str(caught.value)


def test_the_texts_holes_become_ours(tmp_path: Path) -> None:
    text = "Drawn for {prompt}, as {explanation}."
    template = Template("user", "vllm_eval.py", hashlib.sha256(text.encode()).hexdigest(), holes=HOLES)
    assert cut(template, write(tmp_path, "wise")) == text
