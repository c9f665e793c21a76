"""`synth` refuses before it draws what cannot end well, and keeps standard output for who reads it."""

import json
from pathlib import Path

import pytest
from command_line import Run, refused

from tests.small_sets import make_set
from tests.synth_sets import ENGINE, write_prompts

DRAW = ["--ckpt", "demo:sft", "--engine", ENGINE, "--devices", "cpu", "--workers", "1"]


@pytest.fixture(autouse=True)
def prompts(in_this_process: Run, tmp_path: Path) -> None:
    del in_this_process  # which works in tmp_path
    write_prompts(tmp_path / "p.jsonl", ["a ring", "a cube"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["", "--out", "set"], "has no name"),
        (["p.jsonl", "--out", "memory://set"], "lasts as long as one process"),
        (["p.jsonl", "--out", "p.jsonl"], "a file is in the way"),
        (["p.jsonl", "--out", "p.jsonl/set"], "a file is in the way"),
        (["p.jsonl", "--out", "x" * 300], "a name of 300 bytes"),
        (["p.jsonl", "--out", "set", "--push", "nobody"], "ORG/NAME"),
    ],
)
def test_before_anything_is_drawn(in_this_process: Run, words: list[str], said: str) -> None:
    refused(in_this_process(["synth", "start", *words, *DRAW]), said)
    assert not Path("set").exists()


@pytest.mark.parametrize("name", ["README.md", "run.json", "repack.json"])
def test_a_folder_of_something_else_stays_as_it_is(in_this_process: Run, tmp_path: Path, name: str) -> None:
    """A card would replace a README of another project, and `repack.json` would hide what is drawn."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("my own words")
    refused(in_this_process(["synth", "start", "p.jsonl", "--out", "mine", *DRAW]), f"holds {name}")
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["my own words"]


def test_a_copy_replaces_no_readme_of_others(in_this_process: Run, tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own words")
    refused(in_this_process(["synth", "repack", "set", "--out", "mine"]), "holds a README.md")
    assert (tmp_path / "mine" / "README.md").read_text() == "my own words"
    refused(in_this_process(["synth", "repack", "set", "--out", "memory://x"]), "one process")
    refused(in_this_process(["synth", "repack", "set", "--out", ""]), "empty")
    refused(in_this_process(["draw", "set", "0", "--out", "p.jsonl"]), "is a file")
    assert in_this_process(["synth", "repack", "set", "--out", "copy"]).returncode == 0
    refused(in_this_process(["synth", "status", "copy"]), "copy is a repacked copy")


def test_what_others_put_beside_removals_is_left_alone(in_this_process: Run, tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    (tmp_path / "set" / "dedup").mkdir()
    (tmp_path / "set" / "dedup" / "notes.parquet").write_bytes(b"none of ours")
    assert in_this_process(["synth", "card", "set"]).returncode == 0


@pytest.mark.parametrize("command", ["status", "verify", "clean", "dedup", "card"])
def test_a_set_without_a_name(in_this_process: Run, tmp_path: Path, command: str) -> None:
    """The folder that one is in must not be meant."""
    make_set(tmp_path)
    refused(in_this_process(["synth", command, ""]), "empty")


@pytest.mark.parametrize("text", ['{"prompt": 5}\n' * 3, "no JSON\n", '{"prompt": "a", "prompt": "b"}\n'])
def test_a_file_without_any_prompt(in_this_process: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "none.jsonl").write_text(text)
    refused(
        in_this_process(["synth", "start", "none.jsonl", "--out", "set", *DRAW]), "row 0: ", "no prompt"
    )


@pytest.mark.slow
def test_a_log_on_standard_output_is_alone_there(in_this_process: Run) -> None:
    words = ["synth", "start", "p.jsonl", "--out", "set", *DRAW, "--log-json", "-", "--explain"]
    done = in_this_process(words)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert events == ["start", "block", "end"]
    assert "2 of 2 pictures are kept" in done.stderr
    assert "left after" in done.stderr


def test_a_mistyped_command_is_no_prompt_file(in_this_process: Run, tmp_path: Path) -> None:
    done = in_this_process(["synth", "staus", "set"])
    assert done.returncode == 2
    assert "Did you mean 'status'" in done.stderr
    (tmp_path / "staus").mkdir()  # a folder of prompts
    assert "Did you mean" not in in_this_process(["synth", "staus", "--out", "set"]).stderr


def test_code_that_a_set_names_runs_only_if_the_command_names_it_too(in_this_process: Run) -> None:
    """A set may be anybody's: what its spec says is data."""
    assert in_this_process(["synth", "start", "p.jsonl", "--out", "set", *DRAW]).returncode == 0
    refused(in_this_process(["draw", "set", "0/0"]), "names code that would run here", ENGINE)
    refused(in_this_process(["synth", "work", "set", "--share", "1/1"]), "--code", ENGINE)
    done = in_this_process(["draw", "set", "0/0", "--code", ENGINE, "--devices", "cpu"])
    assert (done.returncode, "the same pixels" in done.stdout) == (0, True), done.stderr
