"""Adapters from training to drawing: trained, resumed, merged; the base is not touched."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.train.checkpoint_writer import ADAPTER
from sar_eval.train.fit import TrainingJob, fit
from sar_eval.train.live_weights import live_weights
from sar_eval.train.merge_adapter import merge
from sar_eval.train.start import find_start
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.launched_training import job, make_data

pytest.importorskip("peft", reason="needs the extra train")


class Stop(Exception):
    """Interrupts a training."""


class StopAfter(TrainerCallback):
    """Ends a training without a further state, as a kill does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Stop


class Live(TrainerCallback):
    """Keeps the last weights as an engine would get them."""

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.weights = {name: tensor.clone() for name, tensor in live_weights(model, {})}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lora_training")
    make_data(root)
    fit(job(root, root / "base", steps=2))
    return root


def _job(work: Path, out: Path, *callbacks: TrainerCallback, **changed: Any) -> TrainingJob:
    start = find_start(work / "tokenizer", ckpt=str(work / "base"))
    options = {"lora": 4, "gradient_checkpointing": True, **changed}
    return replace(job(work, out, **options), start=start, callbacks=callbacks)


@pytest.mark.slow
def test_an_adapter_is_trained_resumed_and_merged(work: Path, tmp_path: Path) -> None:
    base = {path.name: path.read_bytes() for path in (work / "base").iterdir()}
    live = Live()
    fit(_job(work, tmp_path / "whole", live))
    tensors = load_file(tmp_path / "whole" / ADAPTER)
    assert len(tensors) == 2 * 7 * 2
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name), "all of it moved"
    with pytest.raises(Stop):
        fit(_job(work, tmp_path / "stopped", StopAfter(5)))
    fit(_job(work, tmp_path / "stopped"))
    again = load_file(tmp_path / "stopped" / ADAPTER)
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    assert {path.name: path.read_bytes() for path in (work / "base").iterdir()} == base

    merge(str(tmp_path / "whole"), tmp_path / "merged")
    found = find_checkpoint(str(tmp_path / "merged"))
    written = found.read_weights("cpu", torch.bfloat16)
    assert written.keys() == live.weights.keys()
    for name, tensor in written.items():  # peft adds the product in another order
        torch.testing.assert_close(live.weights[name], tensor, rtol=2**-7, atol=1e-6)
    with NativeEngine(str(tmp_path / "merged"), DrawProtocol("test", 32, guidance=2.0)) as engine:
        [generation] = engine.generate([make_draw(Prompt("a", "a ring"), 0, 0)])
    assert len(generation.tokens) == 16


def test_adapters_of_random_weights_are_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--lora 4 trains adapters of a checkpoint"):
        fit(job(work, tmp_path / "out", lora=4))
    assert not (tmp_path / "out").exists()
