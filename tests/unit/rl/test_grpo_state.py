"""States: whole or absent, the two newest kept, the settings they were made with."""

import errno
import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch

from sar_eval.errors import BadInput, StorageFailed
from sar_eval.resume_rules import flat
from sar_eval.rl.grpo_recipe import MAY_CHANGE, load_grpo_recipe
from sar_eval.rl.grpo_state import TrainingState
from sar_eval.storage import files


def test_the_two_newest_states_are_kept(tmp_path) -> None:
    state = TrainingState(tmp_path)
    assert state.newest() == 0
    for step in (1, 2, 10):
        state.save(step, {"step": step, "policy": {"w": torch.full((2,), float(step))}})
    assert sorted(path.name for path in state.folder.iterdir()) == ["step-000002.pt", "step-000010.pt"]
    assert state.newest() == 10
    loaded = state.load(10, "cpu")
    assert loaded["step"] == 10
    assert loaded["policy"]["w"].tolist() == [10.0, 10.0]


def test_what_a_kill_left_half_written_is_no_state(tmp_path) -> None:
    state = TrainingState(tmp_path)
    state.save(3, {"step": 3})
    (state.folder / "step-000004.pt.77.tmp").write_bytes(b"half")
    assert state.newest() == 3


@pytest.mark.parametrize("kept_bytes", [0, 100, -20])
def test_a_damaged_state_is_named(tmp_path, kept_bytes) -> None:
    state = TrainingState(tmp_path)
    state.save(3, {"step": 3, "w": torch.zeros(100)})
    path = state.folder / "step-000003.pt"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(BadInput, match=r"step-000003\.pt.*remove it"):
        state.load(3, "cpu")


def test_a_full_disk_keeps_the_state_before(tmp_path, monkeypatch) -> None:
    state = TrainingState(tmp_path)
    state.save(1, {"step": 1})

    def full(temporary: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "publish", full)
    with pytest.raises(StorageFailed, match="step-000002"):
        state.save(2, {"step": 2})
    assert state.newest() == 1
    assert state.load(1, "cpu") == {"step": 1}
    assert [path.name for path in state.folder.iterdir()] == ["step-000001.pt"]


def test_a_run_goes_on_with_its_own_settings_alone(tmp_path) -> None:
    state, settings = TrainingState(tmp_path), {"options": {"steps": 3, "beta": 0.0}, "rewards": [1]}
    state.check_settings(settings)
    state.check_settings(settings)
    with pytest.raises(BadInput, match=r"options\.beta = 0\.0, asked for is 0\.1"):
        state.check_settings({**settings, "options": {"steps": 3, "beta": 0.1}})
    with pytest.raises(BadInput, match=r"rewards = \[1\]"):
        state.check_settings({"options": settings["options"]})


def test_a_run_goes_on_with_less_memory_or_another_device(tmp_path) -> None:
    state = TrainingState(tmp_path)

    def settings(steps: int, micro: int, device: str) -> dict:
        return {
            "options": {"steps": steps, "micro": micro},
            "rewards": [{"name": "a", "device": "cpu"}, {"name": "b", "device": device}],
        }

    may_change = ("options.micro", "rewards.*.device")
    state.check_settings(settings(3, 8, "cuda:1"), may_change)
    state.check_settings(settings(3, 4, "cpu"), may_change)
    assert json.loads((tmp_path / "settings.json").read_text()) == settings(3, 4, "cpu")
    with pytest.raises(BadInput, match=r"options\.micro = 4"):
        state.check_settings(settings(3, 2, "cpu"))
    with pytest.raises(BadInput, match=r"options\.steps"):
        state.check_settings(settings(4, 2, "cpu"), may_change)


def test_every_setting_that_may_change_is_one() -> None:
    recipe = load_grpo_recipe("shapes")
    names = set(flat(recipe.settings()))
    for pattern in MAY_CHANGE:
        assert any(fnmatchcase(name, pattern) for name in names), pattern


@pytest.mark.parametrize("stored", ["[1]", "3", '"text"'])
def test_settings_that_are_none_are_named(tmp_path, stored) -> None:
    (tmp_path / "settings.json").write_text(stored)
    with pytest.raises(BadInput, match=r"settings\.json is no file of a training's settings"):
        TrainingState(tmp_path).check_settings({"steps": 3})


class Foreign:
    """Not of the classes that a state may have."""


@pytest.mark.parametrize(
    "content",
    [
        {"step": 1},  # nothing is in it
        {"step": 1, "policy": {"w": torch.zeros(3)}},  # of other shapes
        {"step": 1, "policy": {"v": torch.zeros(2)}},  # of other names
        {"step": 1, "policy": 7},
        [1, 2],
        Foreign(),
    ],
)
def test_a_state_of_something_else_is_named(tmp_path, content) -> None:
    state, policy = TrainingState(tmp_path), torch.nn.Module()
    policy.w = torch.nn.Parameter(torch.zeros(2))
    state.folder.mkdir()
    torch.save(content, state.folder / "step-000001.pt")
    refused = pytest.raises(BadInput, match=r"step-000001\.pt (is no state|cannot be read).*remove it")
    with refused, state.loaded(1, "cpu") as loaded:
        policy.load_state_dict(loaded["policy"])


def test_what_kills_left_is_removed_by_the_next_save(tmp_path) -> None:
    """Each is as large as a state: a run that is killed often would fill the disk."""
    state = TrainingState(tmp_path)
    state.folder.mkdir()
    for name in ("step-000001.pt.77.tmp", "step-000002.pt.78.tmp", "mine.tmp"):
        (state.folder / name).write_bytes(b"half")
    state.save(3, {"step": 3})
    assert sorted(path.name for path in state.folder.iterdir()) == ["mine.tmp", "step-000003.pt"]
