"""Several processes train what one trains, under DDP and FSDP2, and go on with each other's states."""

from functools import partial
from pathlib import Path

import pytest
import torch

from sar_eval.train.fit import TrainingJob, fit
from tests.launched_training import job, launch_variables, losses, make_data, train_in_ranks, weights

CONFIGS = Path(__file__).parents[2] / "benchmarks" / "train"
DDP, FSDP2 = CONFIGS / "accelerate-ddp.yaml", CONFIGS / "accelerate-fsdp2.yaml"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


def _job(data: Path, out: Path, tie: bool, stop: int = 0) -> TrainingJob:
    """With averaged weights where the head is the embedding's copy no longer: shards have states, too."""
    return job(data, out, tie=tie, stop=stop, ema=0.0 if tie else 0.5)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def alone(request: pytest.FixtureRequest, data: Path) -> tuple[bool, Path]:
    """Whether head and embedding are one, and the checkpoint that one process made."""
    out = data / f"alone-{request.param}"
    fit(_job(data, out, request.param))
    return request.param, out


def _assert_same(out: Path, other: Path) -> None:
    """Sums over ranks are rounded otherwise; a weight near the middle of two of bfloat16 goes to either."""
    assert losses(out) == pytest.approx(losses(other), rel=1e-5)
    first, second = weights(out), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=2**-7, atol=1e-5, msg=name)


def test_the_config_files_say_what_they_are_called() -> None:
    assert "ACCELERATE_USE_FSDP" not in launch_variables(DDP)
    sharded = launch_variables(FSDP2)
    assert (sharded["ACCELERATE_USE_FSDP"], sharded["FSDP_VERSION"]) == ("true", "2")


@pytest.mark.parametrize("config", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_two_processes_train_what_one_trains(alone, data, tmp_path, config) -> None:
    tie, out = alone
    assert train_in_ranks(partial(_job, data, tmp_path / "two", tie), config) == ["", ""]
    _assert_same(tmp_path / "two", out)


def test_a_training_goes_on_in_another_number_of_processes(alone, data, tmp_path) -> None:
    """One process, two under FSDP2, two under DDP, and one again; each is stopped after its steps."""
    tie, whole = alone
    out = tmp_path / "parts"
    for stop, config in ((2, None), (4, FSDP2), (5, DDP)):
        ends = train_in_ranks(partial(_job, data, out, tie, stop), config, 2 if config else 1)
        assert all(f"the state of step {stop} is saved" in end for end in ends)
    fit(_job(data, out, tie))
    _assert_same(out, whole)
