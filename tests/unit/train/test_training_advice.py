"""What is said before a training, and what to change where its memory was too small."""

from pathlib import Path

import pytest
import torch

from sar_eval.errors import Incomplete, StorageFailed
from sar_eval.train.trainer import training_arguments
from sar_eval.train.training_advice import advice, enough_memory
from sar_eval.train.training_options import TrainingOptions

OPTIONS = TrainingOptions(steps=400, batch_size=8, learning_rate=1e-3, micro=4, precision="float32")


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)


@pytest.mark.usefixtures("four_gpus")
def test_one_process_trains_on_one_gpu_and_the_others_are_told(tmp_path: Path) -> None:
    """transformers would wrap the model into `nn.DataParallel`."""
    assert training_arguments(tmp_path, OPTIONS, 1).n_gpu == 1
    [said] = advice(OPTIONS)
    assert said.startswith(
        "1 of 4 GPUs is used: for all, start it as `torchrun --nproc_per_node=4 -m sar_eval"
    )


@pytest.mark.parametrize(
    ("steps", "stop_at", "share"), [(8, 0, "4%"), (400, 50, "24%"), (101, 0, "50%"), (400, 0, "")]
)
def test_a_warm_up_without_end_is_told(steps: int, stop_at: int, share: str) -> None:
    said = advice(TrainingOptions(steps=steps, learning_rate=1e-3, stop_at=stop_at))
    assert [f"its last step has {share} of the rate" in sentence for sentence in said] == [True] * bool(
        share
    )


def _raised(error: Exception) -> Exception:
    with pytest.raises(Exception) as caught, enough_memory(OPTIONS):  # noqa: PT011 - looked at by the callers
        raise error
    return caught.value


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()])
def test_too_little_memory_says_what_to_change(error: Exception) -> None:
    found = _raised(error)
    assert isinstance(found, Incomplete)
    for words in ("--micro (now 4)", "--gradient-checkpointing", "fsdp2", "evaluation.batch_size"):
        assert words in str(found)


def test_a_killed_loader_says_what_to_change() -> None:
    found = _raised(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."))
    assert isinstance(found, Incomplete)
    assert "lower --workers or --window" in str(found)


@pytest.mark.parametrize("error", [RuntimeError("shape"), StorageFailed("out of memory cards")])
def test_other_errors_stay(error: Exception) -> None:
    assert _raised(error) is error
