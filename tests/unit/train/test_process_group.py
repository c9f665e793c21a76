"""What is said where processes of a training lose each other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from accelerate import PartialState

from sar_eval.errors import Incomplete, StorageFailed
from sar_eval.train.process_group import WAIT, process_group


@pytest.fixture
def one_of_one(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    PartialState._reset_state()


@pytest.mark.usefixtures("one_of_one")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("Connection closed by peer [10.0.0.1]", "is gone, killed perhaps for its memory: run the same"),
        ("Timed out waiting 7200000ms for recv", "did not answer in time: it hangs, or cannot be reached"),
    ],
)
def test_a_lost_process_is_not_a_late_one(error: str, message: str) -> None:
    with pytest.raises(Incomplete, match=message), process_group():
        raise RuntimeError(error)


@pytest.mark.usefixtures("one_of_one")
@pytest.mark.parametrize("error", [RuntimeError("shape"), StorageFailed("the store timed out")])
def test_other_errors_are_none_of_processes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, process_group():
        raise error
    assert caught.value is error


def test_processes_wait_longer_than_a_state_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(PartialState, "__init__", lambda self, **options: asked.append(options))
    with process_group():
        pass
    assert asked[0]["timeout"] == WAIT
    assert WAIT.total_seconds() > 3600
