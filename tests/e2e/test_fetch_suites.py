"""`prompts fetch` of a suite in several official files, from a server with the usual failures."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sar_eval.suites.locate import find_suite, missing_suite_hint
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.source import read_template
from tests.tiny_suite import PROGRAM, ROWS, SYSTEM, USER, declared


@pytest.fixture(autouse=True)
def tiny(server, tmp_path: Path) -> Iterator[None]:
    """The suite is declared, and its files are on the server."""
    server.files = {"rows.json": json.dumps(ROWS).encode(), "judge.py": PROGRAM.encode()}
    with declared(tmp_path / "more"):
        yield


def test_files_are_fetched_imported_and_cut(server, sar_eval_here, tmp_path) -> None:
    path = find_suite("tiny.jsonl", (tmp_path,))
    assert path == tmp_path / "cache" / "tiny.jsonl"
    assert missing_suite_hint(path).startswith(f"no {path}: `sar-eval prompts fetch tiny` downloads and")
    server.cut_after = [20]
    code, output = sar_eval_here("prompts", "fetch", "tiny")
    assert code == 0, output
    assert "Tiny bench, 2 files; licence: no licence" in output
    assert [path for path, _ in server.requests] == ["/tiny/rows.json", "/tiny/rows.json", "/tiny/judge.py"]
    assert missing_suite_hint(path) == ""
    assert [prompt.id for prompt in load_suite(path).prompts] == ["1", "2"]
    assert (read_template("tiny/system"), read_template("tiny/user")) == (SYSTEM, USER)
    folder = tmp_path / "cache" / "sources" / "tiny"
    assert (folder / "judge.py").read_text() == PROGRAM
    assert sar_eval_here("prompts", "fetch", "tiny", "--out", tmp_path / "mine.jsonl")[0] == 0
    assert len(server.requests) == 3
    assert (tmp_path / "mine.jsonl").read_bytes() == path.read_bytes()


def test_a_login_page_is_no_suite(server, sar_eval_here) -> None:
    server.files["rows.json"] = b"<!DOCTYPE html><html>Log in</html>"
    code, output = sar_eval_here("prompts", "fetch", "tiny")
    assert code == 3
    assert "is a web page" in output


def test_offline_names_the_file(server, sar_eval_here, monkeypatch) -> None:
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")
    code, output = sar_eval_here("prompts", "fetch", "tiny")
    assert code == 2
    assert "get https://example.org/tiny/rows.json elsewhere and put it there" in output
