"""States of a decoder's training: whole or absent, the newest kept, damage named."""

import errno
import json
from pathlib import Path

import pytest
import torch

from sar_eval.errors import BadInput, StorageFailed
from sar_eval.storage import files
from sar_eval.train.training_states import TrainingStates


@pytest.fixture
def states(tmp_path: Path) -> TrainingStates:
    made = TrainingStates(tmp_path / "state")
    _save(made, 3)
    return made


def _save(states: TrainingStates, step: int) -> None:
    states.save(step, {"w": torch.full((100,), float(step))})


def _names(states: TrainingStates) -> list[str]:
    return sorted(path.name for path in states.folder.iterdir())


def test_the_newest_state_replaces_the_one_before(states) -> None:
    _save(states, 10)
    assert (states.newest(), _names(states)) == (10, ["checkpoint-10"])
    assert states.load(10)["w"].tolist() == [10.0] * 100


def test_what_a_kill_left_is_no_state_and_is_removed(states) -> None:
    (states.folder / "checkpoint-4.77.tmp").mkdir()
    (states.folder / "checkpoint-notes").mkdir()
    assert states.newest() == 3
    states.discard()
    assert _names(states) == ["checkpoint-3", "checkpoint-notes"]


@pytest.mark.parametrize("kept", [0, 5])
def test_a_file_that_was_cut_off_is_named(states, kept) -> None:
    path = states.path(3) / "state.pt"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"checkpoint-3/state\.pt is damaged.*remove"):
        states.load(3)


def test_a_flipped_byte_is_found(states) -> None:
    path = states.path(3) / "state.pt"
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((100,), 3.0).numpy().tobytes()) + 8] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"state\.pt is damaged.*remove .*checkpoint-3 to begin .*at step 0"):
        states.load(3)


def test_a_list_is_no_state(states) -> None:
    path = states.path(3) / "state.pt"
    torch.save([1, 2], path)
    about = {"step": 3, "files": {"state.pt": path.stat().st_size}}
    (path.parent / "state.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match=r"checkpoint-3 is no state of this training.*remove"):
        states.load(3)


def test_a_full_disk_keeps_the_state_before(states, monkeypatch) -> None:
    def full(temporary: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "publish", full)
    with pytest.raises(StorageFailed, match="the disk is full"):
        states.save(4, {})
    assert (states.newest(), _names(states)) == (3, ["checkpoint-3"])
