"""`sar-eval doctor dpg`: the judge's weights and its answers against a table of the original's."""

import json
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.answerers.mplug import MplugAnswerer
from sar_eval.cli.inspect import doctor as command
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
    """An image beside a table of what our network answers itself."""
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


def outcome(found, name):
    return [(ok, detail) for (told, detail), ok in found.items() if told == name]


def test_whole_files(folder, table) -> None:
    found = findings(folder, table)
    assert set(found.values()) == {True, None}
    assert [ok for ok, _ in outcome(found, "digest")] == [None]
    assert (True, "186 used tensors") in outcome(found, "tensors")
    assert len(outcome(found, "tied")) == 2
    assert outcome(found, "answers") == [(True, "3 of 3 are the original's")]


def test_each_disagreement_is_told(folder, table) -> None:
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[1]["answer"] = "maybe"
    table.write_text("\n".join(json.dumps(row) for row in rows))
    found = findings(folder, table)
    assert outcome(found, "answers") == [(False, "2 of 3 are the original's")]
    [(ok, told)] = outcome(found, "answer")
    assert not ok
    assert told.startswith(f"{table}:2: 'Is the car red?' of a.png: ")
    assert told.endswith("the original says 'maybe'")


def test_a_file_without_what_is_dropped_is_odd_and_loads(tmp_path) -> None:
    folder = write_tiny_mplug(tmp_path / "m", distill=True, wrapper="")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({n: t for n, t in state.items() if "_m." not in n}, folder / "pytorch_model.bin")
    found = findings(folder)
    assert (None, "0 momentum tensors, a whole file of this shape has 261") in outcome(found, "tensors")
    assert [ok for ok, _ in outcome(found, "network")] == [True]


def test_a_file_that_does_not_fit(tmp_path) -> None:
    folder = write_tiny_mplug(tmp_path / "m", wrapper="")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    head = "text_decoder.cls.predictions.decoder.weight"
    torch.save(state | {head: state[head] + 1, "x": torch.ones(1)}, folder / "pytorch_model.bin")
    found = findings(folder)
    assert (False, "1 unknown tensors, a whole file of this shape has 0") in outcome(found, "tensors")
    assert (False, f"{head}: NOT equal") in outcome(found, "tied")
    [(ok, told)] = outcome(found, "fit")
    assert (ok, "not the network's (x)" in told) == (False, True)
    assert outcome(found, "network") == []


def test_the_digest_of_the_download(folder) -> None:
    checksum_path(folder / "pytorch_model.bin").write_text("0" * 64 + "  pytorch_model.bin\n")
    [(ok, told)] = outcome(findings(folder), "digest")
    assert (ok, "the file has changed" in told) == (False, True)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "has no rows"),
        ("{", "table.jsonl:1 is no JSON"),
        ("[]", "table.jsonl:1: image must be text"),
        ('\n{"image": "a.png", "question": "x"}', "table.jsonl:2: answer must be text"),
        ('{"image": "b.png", "question": "x", "answer": "y"}', "table.jsonl:1: unreadable image .*b.png"),
        ('{"image": "table.jsonl", "question": "x", "answer": "y"}', "unreadable image"),
    ],
)
def test_a_table_that_cannot_be_read(folder, table, content, named) -> None:
    table.write_text(content)
    [(ok, told)] = outcome(findings(folder, table), "dpg")
    assert not ok
    assert re.search(named, told)


def test_weights_that_are_not_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    [(ok, told)] = outcome(findings(None), "dpg")
    assert (ok, "`sar-eval fetch dpg` downloads" in told) == (False, True)


def test_another_benchmark() -> None:
    with pytest.raises(UnknownName, match="did you mean 'dpg'"):
        list(doctor.examine_judge("dgp", None, None, "cpu"))


@pytest.mark.slow
def test_the_command(sar_eval, folder, table) -> None:
    alone = {"env": os.environ | {"OMP_NUM_THREADS": "1"}}
    done = sar_eval("doctor", "dpg", "--weights", folder, "--reference", table, **alone)
    assert (done.returncode, "3 of 3 are the original's" in done.stdout) == (0, True)
    done = sar_eval("doctor", "--reference", table)
    assert (done.returncode, "sar-eval doctor dpg" in done.stderr) == (2, True)


def test_the_command_over_weights_that_are_not_in_order(folder, capsys) -> None:
    (folder / "vocab.txt").unlink()
    with pytest.raises(BadInput, match="not in order: dpg") as caught:
        command("dpg", weights=folder, as_json=True)
    assert caught.value.exit_code == 2
    assert "vocab.txt" in json.loads(capsys.readouterr().out)[-1]["detail"]
