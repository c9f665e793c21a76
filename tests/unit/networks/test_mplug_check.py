"""`sar-eval doctor dpg`: checks of mPLUG's weights, and of its answers against a reference table."""

import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.answerers.mplug import MplugAnswerer
from sar_eval.cli.doctor import doctor as command
from sar_eval.errors import BadInput, UnknownName
from sar_eval.stages import doctor
from sar_eval.tensors.published_weights import checksum_path
from tests.mplug_files import write_tiny_mplug

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTIONS = ["Is there a dog?", "Is the car red?", "Are there two apples?"]


@pytest.fixture
def folder(tmp_path):
    return write_tiny_mplug(tmp_path / "mplug", distill=True)


@pytest.fixture
def table(tmp_path, folder):
    """A table of our own network's answers for one image."""
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    with MplugAnswerer(weights=str(folder)) as answerer:
        answers = next(answerer.answer([(image, QUESTIONS)]))
    pairs = zip(QUESTIONS, answers, strict=True)
    rows = [{"image": "a.png", "question": question, "answer": answer.text} for question, answer in pairs]
    (tmp_path / "table.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path / "table.jsonl"


def findings(folder, table=None):
    return {(f.name, f.detail): f.ok for f in doctor.examine_judge("dpg", folder, table, "cpu")}


def checks_named(checks, name):
    return [(ok, detail) for (check, detail), ok in checks.items() if check == name]


def test_complete_files_pass(folder, table) -> None:
    checks = findings(folder, table)
    assert set(checks.values()) == {True, None}
    assert [ok for ok, _ in checks_named(checks, "digest")] == [None]
    assert (True, "186 used tensors") in checks_named(checks, "tensors")
    assert len(checks_named(checks, "tied")) == 2
    assert checks_named(checks, "answers") == [(True, "3 of 3 are the original's")]


def test_each_different_answer_is_listed(folder, table) -> None:
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[1]["answer"] = "maybe"
    table.write_text("\n".join(json.dumps(row) for row in rows))
    checks = findings(folder, table)
    assert checks_named(checks, "answers") == [(False, "2 of 3 are the original's")]
    [(ok, detail)] = checks_named(checks, "answer")
    assert not ok
    assert detail.startswith(f"{table}:2: 'Is the car red?' of a.png: ")
    assert detail.endswith("the original says 'maybe'")


def test_missing_dropped_tensors_are_a_note_and_no_failure(tmp_path) -> None:
    folder = write_tiny_mplug(tmp_path / "m", distill=True, wrapper="")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({n: t for n, t in state.items() if "_m." not in n}, folder / "pytorch_model.bin")
    checks = findings(folder)
    assert (None, "0 momentum tensors, a complete file of this shape has 261") in checks_named(
        checks, "tensors"
    )
    assert [ok for ok, _ in checks_named(checks, "network")] == [True]


def test_a_file_that_does_not_fit_fails(tmp_path) -> None:
    folder = write_tiny_mplug(tmp_path / "m", wrapper="")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    head = "text_decoder.cls.predictions.decoder.weight"
    torch.save(state | {head: state[head] + 1, "x": torch.ones(1)}, folder / "pytorch_model.bin")
    checks = findings(folder)
    assert (False, "1 unknown tensors, a complete file of this shape has 0") in checks_named(
        checks, "tensors"
    )
    assert (False, f"{head}: NOT equal") in checks_named(checks, "tied")
    [(ok, detail)] = checks_named(checks, "fit")
    assert (ok, "not the network's (x)" in detail) == (False, True)
    assert checks_named(checks, "network") == []


def test_another_digest_than_the_downloads_fails(folder) -> None:
    checksum_path(folder / "pytorch_model.bin").write_text("0" * 64 + "  pytorch_model.bin\n")
    [(ok, detail)] = checks_named(findings(folder), "digest")
    assert (ok, "the file has changed" in detail) == (False, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ("{", "table.jsonl:1 is no JSON"),
        ("[]", "table.jsonl:1: image must be text"),
        ('\n{"image": "a.png", "question": "x"}', "table.jsonl:2: answer must be text"),
        ('{"image": "b.png", "question": "x", "answer": "y"}', "table.jsonl:1: unreadable image .*b.png"),
        ('{"image": "table.jsonl", "question": "x", "answer": "y"}', "unreadable image"),
    ],
)
def test_an_unreadable_table_fails(folder, table, content, message) -> None:
    table.write_text(content)
    [(ok, detail)] = checks_named(findings(folder, table), "dpg")
    assert not ok
    assert re.search(message, detail)


def test_missing_weights_fail_with_the_command_that_downloads_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    [(ok, detail)] = checks_named(findings(None), "dpg")
    assert (ok, "`sar-eval fetch dpg` downloads" in detail) == (False, True)


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'dpg'"):
        list(doctor.examine_judge("dgp", None, None, "cpu"))


@pytest.mark.slow
def test_the_command(sar_eval, folder, table) -> None:
    one_thread = {"env": os.environ | {"OMP_NUM_THREADS": "1"}}
    done = sar_eval("doctor", "dpg", "--weights", folder, "--reference", table, **one_thread)
    assert (done.returncode, "3 of 3 are the original's" in done.stdout) == (0, True)
    done = sar_eval("doctor", "--reference", table)
    assert (done.returncode, "sar-eval doctor dpg" in done.stderr) == (2, True)


def test_the_command_fails_for_incomplete_weights(folder, capsys) -> None:
    (folder / "vocab.txt").unlink()
    with pytest.raises(BadInput, match="failed checks: dpg") as caught:
        command("dpg", weights=folder, as_json=True)
    assert caught.value.exit_code == 2
    assert "vocab.txt" in json.loads(capsys.readouterr().out)[-1]["detail"]
