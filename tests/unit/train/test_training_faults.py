"""What may befall a training: interrupted, killed, out of disk, diverged; and how it goes on."""

import errno
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from sar_eval.errors import BadInput, Incomplete, StorageFailed
from sar_eval.storage import files
from sar_eval.train.fit import fit
from sar_eval.train.start import ShapeStart
from sar_eval.train.training_watch import Watching
from tests.launched_training import CODES, SHAPE, job, losses, make_data, weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """A checkpoint whose training nothing happened to."""
    fit(job(data, data / "whole"))
    return data / "whole"


def _assert_same(out: Path, whole: Path) -> None:
    assert losses(out) == losses(whole)
    first, second = weights(out), weights(whole)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not (out / "state").exists()


class AtStep(TrainerCallback):
    """Does something at a step's end, before its state is saved."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.act()


def _with(made: Any, callback: TrainerCallback) -> Any:
    return replace(made, callbacks=[callback])


def test_a_signal_ends_the_step_saves_its_state_and_the_next_call_goes_on(data, whole, tmp_path) -> None:
    out = tmp_path / "out"
    interrupt = AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Incomplete, match=r"the state of step 4 is saved"):  # asked at the end of 3
        fit(_with(job(data, out), interrupt))
    fit(job(data, out))
    _assert_same(out, whole)


@pytest.mark.slow
def test_a_training_that_broke_off_between_states_goes_on_to_the_same_weights(
    data, whole, tmp_path
) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fit(_with(job(data, out), AtStep(5, fail)))
    assert [path.name for path in (out / "state").glob("checkpoint-*")] == ["checkpoint-4"]
    fit(job(data, out, workers=0, log_every=1))
    _assert_same(out, whole)


@pytest.mark.slow
def test_a_full_disk_at_a_state_keeps_the_one_before(data, whole, tmp_path, monkeypatch) -> None:
    publish, out = files.publish, tmp_path / "out"

    def full(temporary: Path, path: Path) -> None:
        if "checkpoint-4" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(temporary, path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "publish", full)
        with pytest.raises(StorageFailed, match=r"checkpoint-4.*the disk is full"):
            fit(job(data, out))
    assert [path.name for path in (out / "state").glob("checkpoint-*")] == ["checkpoint-2"]
    fit(job(data, out))
    _assert_same(out, whole)


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_its_rows(data, tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Incomplete, match=r"step 3: .*no number.*state of step 2 stays.*Its rows: .*shard"):
        fit(job(data, out, learning_rate=1e30, warmup=1, max_grad_norm=1e30))
    report = json.loads((out / "diverged.json").read_text())
    assert report["step"] == 3
    assert sorted(len(each["keys"]) for each in report["passes"]) == [2, 2, 2, 2]
    assert not (out / "sar_eval.json").exists()
    assert all(math.isfinite(loss) for loss in losses(out))


@pytest.mark.slow
def test_other_options_are_refused_by_name_and_those_of_memory_may_change(data, whole, tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Incomplete):
        fit(job(data, out, stop=2))
    with pytest.raises(BadInput, match=r"training\.learning_rate = 0\.01, asked for is 0\.02"):
        fit(job(data, out, learning_rate=0.02))
    with pytest.raises(BadInput, match=r"start\.tied"):
        fit(job(data, out, tie=False))
    fit(job(data, out, micro=4, save_every=5))
    assert losses(out) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
def test_a_damaged_state_is_named(data, tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Incomplete):
        fit(job(data, out, stop=2))
    path = out / "state" / "checkpoint-2" / "state.pt"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BadInput, match=r"state\.pt is damaged"):
        fit(job(data, out))


def test_captions_that_were_cut_are_told(data, tmp_path) -> None:
    """The context takes a picture of 16 tokens, `<|t2i|>`, `<|soi|>` and two words."""
    heard: list[str] = []
    (tmp_path / "shape.json").write_text(json.dumps({**SHAPE, "max_position_embeddings": 20}))
    asked = replace(
        job(data, tmp_path / "out", steps=2, stop_at=1, caption_dropout=0.0),
        start=ShapeStart(shape=str(tmp_path / "shape.json"), codebook_size=CODES),
        watching=Watching(tell=heard.append),
    )
    fit(asked)
    assert any(
        "cut at their end, to fit into the model's context of 20 tokens" in words for words in heard
    ), heard
