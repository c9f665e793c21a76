"""Sources of suites: one file makes `prompts fetch`, `prompts import` and the judge's texts work."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.suites import source as sources
from sar_eval.suites.cut_templates import cut
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.source import Template
from tests.tiny_suite import PROGRAM, ROWS, SYSTEM, USER, declared


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """The folder with a suite's official files."""
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "judge.py").write_text(PROGRAM)
    with declared(tmp_path / "more"):
        yield folder


def test_import_writes_suite_and_templates(sar_eval_here, tiny: Path, tmp_path: Path) -> None:
    code, output = sar_eval_here("prompts", "import", "tiny", "--from", tiny)
    assert code == 0, output
    path = tmp_path / "cache" / "tiny.jsonl"
    suite = load_suite(path)
    assert output.splitlines() == [
        "rows.json: a note",
        f"2 prompts with 2 reasons in {path}, digest {suite.digest}; 1 notes",
    ]
    assert [(p.id, p.text, p.tag) for p in suite.prompts] == [
        ("1", "a red ball", "colour"),
        ("2", "zwei B\u00e4lle", ""),
    ]
    assert sources.read_template("tiny/system") == SYSTEM
    assert sources.read_template("tiny/user") == USER
    assert sources.read_template("tiny/questions") == "Is it so? {questions}"


def test_a_template_of_another_version_is_a_note(sar_eval_here, tiny: Path, tmp_path: Path) -> None:
    (tiny / "judge.py").write_text(PROGRAM.replace("Judge ", "Look at "))
    code, output = sar_eval_here("prompts", "import", "tiny", "--from", tiny)
    assert code == 0, output
    assert "no text in it has the SHA-256 of the template 'system'" in output
    assert "the judge's text tiny/system was not stored" in output
    assert sources.read_template("tiny/user") == USER
    with pytest.raises(BadInput, match=r"no .*/templates/tiny/system.txt: `sar-eval prompts fetch tiny`"):
        sources.read_template("tiny/system")


def test_a_template_that_somebody_changed_is_refused(sar_eval_here, tiny: Path, tmp_path: Path) -> None:
    sar_eval_here("prompts", "import", "tiny", "--from", tiny)
    path = tmp_path / "cache" / "templates" / "tiny" / "system.txt"
    path.write_text("Say 1.")
    with pytest.raises(BadInput, match=rf"{path} is not the official text: remove it"):
        sources.read_template("tiny/system")
    with pytest.raises(BadInput, match=r"suite 'tiny' has no template 'other': system, user, questions"):
        sources.read_template("tiny/other")


def test_a_missing_official_file_is_named(sar_eval_here, tiny: Path) -> None:
    (tiny / "rows.json").unlink()
    code, output = sar_eval_here("prompts", "import", "tiny", "--from", tiny)
    assert (code, output) == (
        2,
        f"error: no {tiny}/rows.json: give the folder with the official rows.json\n",
    )
    code, output = sar_eval_here("prompts", "import", "tiny")
    assert (code, output) == (2, "error: --from is missing: give the folder tiny\n")


def test_suites_are_listed_with_their_licences(sar_eval_here, tiny: Path) -> None:
    code, output = sar_eval_here("prompts", "fetch")
    assert code == 0
    assert "dpg              DPG-Bench; licence: Apache-2.0" in output.splitlines()
    assert "tiny             Tiny bench; licence: no licence" in output.splitlines()


@pytest.mark.parametrize("content", [b"def (", b"\0", b"(" * 100_000, b"\xff\xfe", b"x = '\\ud800'"])
def test_a_hostile_program_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "judge.py").write_bytes(content)
    with pytest.raises(BadInput, match=r"judge.py"):
        cut(Template("t", "judge.py", "0" * 64), tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", SYSTEM),
        ("t.json", json.dumps({"a": [{"b": SYSTEM}]})),
        ("t.jsonl", '{"a": "x"}\n\n' + json.dumps({"a": SYSTEM}) + "\n"),
    ],
)
def test_templates_come_from_other_files_too(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    template = Template("t", name, hashlib.sha256(SYSTEM.encode()).hexdigest())
    assert cut(template, tmp_path) == SYSTEM
    (tmp_path / "rows.csv").write_text("id,text\n")
    assert cut(template, tmp_path / "rows.csv") == SYSTEM
