"""Ranks share an evaluation, whatever holds the weights; averages go on in any number of processes."""

from functools import partial
from pathlib import Path

import pytest
import torch

from sar_eval.storage.training_journal import read_holdout, read_samples
from sar_eval.train.fit import fit
from tests.decoder_trainings import evaluated_job, make_data
from tests.launched_training import train_in_ranks, weights

FSDP2 = Path(__file__).parents[2] / "benchmarks" / "train" / "accelerate-fsdp2.yaml"


@pytest.mark.slow
def test_shards_are_evaluated_averaged_and_gone_on_with_as_one_process_does(tmp_path: Path) -> None:
    """Two ranks under FSDP2, interrupted after a step that is evaluated; then the same two; then one."""
    make_data(tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"ema": 0.9, "micro": 2, "steps": 5}
    fit(evaluated_job(tmp_path, whole, **options))
    for stop in (2, 4):
        made = partial(evaluated_job, tmp_path, parts, stop=stop, **options)
        assert all(f"the state of step {stop} is saved" in end for end in train_in_ranks(made, FSDP2))
        averages = torch.load(parts / "state" / f"checkpoint-{stop}" / "state.pt")["averages"]
        assert {name: tensor.shape for name, tensor in averages.items()} == {
            name: tensor.shape for name, tensor in weights(whole).items()
        }
    fit(evaluated_job(tmp_path, parts, **options))
    for name, tensor in weights(parts).items():
        torch.testing.assert_close(tensor, weights(whole)[name], rtol=2**-7, atol=1e-5, msg=name)
    found, expected = read_holdout(parts), read_holdout(whole)
    assert [(row.step, row.n) for row in found] == [(row.step, row.n) for row in expected]
    # A weight that is rounded otherwise may change a code here and there.
    assert [row.value for row in found] == pytest.approx([row.value for row in expected], abs=0.03)
    assert [row.prompt_id for row in read_samples(parts, 2)] == [
        row.prompt_id for row in read_samples(whole, 2)
    ]
