"""Averaged weights: the sum by hand, their part of a state, and what is written of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sar_eval.errors import BadInput
from sar_eval.train.ema import AveragedWeights, decay_at
from sar_eval.train.fit import fit
from sar_eval.train.live_weights import live_weights, whole_weights
from tests import launched_training
from tests.unit.train.test_evaluation import Stop, StopAfter, _weights


def _state(step: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step)


def _begun(model: nn.Module, decay: float = 0.9) -> AveragedWeights:
    averaged = AveragedWeights(decay)
    averaged.on_train_begin(SimpleNamespace(output_dir="none"), _state(0), None, model=model)
    return averaged


def test_the_average_is_that_by_hand() -> None:
    torch.manual_seed(0)
    model, expected = nn.Linear(3, 2), None
    averaged = _begun(model)
    expected = model.weight.detach().double().clone()
    for step in range(1, 31):
        with torch.no_grad():
            model.weight += torch.randn_like(model.weight)
        averaged.on_step_end(None, _state(step), None, model=model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(averaged.tensors["weight"].double(), expected, rtol=1e-5, atol=1e-6)
    assert averaged.tensors["weight"].dtype == torch.float32
    assert decay_at(1, 0.9) == pytest.approx(2 / 11)
    assert decay_at(10_000, 0.9) == 0.9


def test_frozen_weights_are_not_averaged_and_are_written_as_they_are() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(requires_grad=False)
    averaged = _begun(model)
    assert set(averaged.tensors) == {"weight"}
    with torch.no_grad():
        model.weight.fill_(7.0)
    written = whole_weights(model, averaged.tensors)
    assert written.keys() == {"weight", "bias"}
    assert torch.equal(written["weight"], averaged.tensors["weight"].bfloat16())
    assert torch.equal(written["bias"], model.bias.detach().bfloat16())


def test_names_are_the_checkpoints_whatever_wraps_the_model() -> None:
    compiled = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"head": nn.Linear(2, 2)})})
    wrapped = nn.ModuleDict({"module": compiled})
    assert [name for name, _ in live_weights(wrapped, {})] == ["head.weight", "head.bias"]


def test_a_state_gives_the_averages_back(tmp_path) -> None:
    model = nn.Linear(3, 2)
    averaged = _begun(model)
    averaged.tensors["weight"].fill_(0.125)
    stored = averaged.gathered_state()

    def resume(stored: dict[str, Tensor]) -> AveragedWeights:
        resumed = AveragedWeights(0.9)
        resumed.resume_from(stored)
        resumed.on_train_begin(SimpleNamespace(output_dir=str(tmp_path)), _state(4), None, model=model)
        return resumed

    for name, tensor in resume(stored).tensors.items():
        assert torch.equal(tensor, averaged.tensors[name])
    with pytest.raises(BadInput, match=r"checkpoint-4 has averages of other parameters.*remove it"):
        resume({"weight": torch.zeros(3, 2)})
    with pytest.raises(BadInput, match="checkpoint-4 has no averaged weights"):
        resume({})


@pytest.mark.slow
def test_a_resumed_training_writes_the_same_averages(tmp_path) -> None:
    launched_training.make_data(tmp_path)
    asked = launched_training.job(tmp_path, tmp_path / "whole", ema=0.9)
    fit(asked)
    fit(launched_training.job(tmp_path, tmp_path / "last"))
    again = replace(asked, out=tmp_path / "again")
    with suppress(Stop):
        fit(replace(again, callbacks=[StopAfter(5)]))
    saved = torch.load(again.out / "state" / "checkpoint-4" / "state.pt")["averages"]
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    fit(again)
    assert _weights(again.out) == _weights(asked.out)
    assert _weights(asked.out) != _weights(tmp_path / "last")
