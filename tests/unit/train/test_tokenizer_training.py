"""A visual tokenizer is trained: resumed exactly, exported once, and what is wrong is named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.train.scenes import make_scenes
from sar_eval.train.tokenizer import TokenizerOptions, train_tokenizer

SMALL = TokenizerOptions(levels=(4, 4, 4), width=16, steps=1, batch_size=2)
pytestmark = pytest.mark.usefixtures("one_thread")


class Stop(Exception):
    """Interrupts a training."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes and a tokenizer that was trained on them."""
    folder = tmp_path_factory.mktemp("trained")
    make_scenes(folder / "scenes", 4, style="noisy", seed=1)
    train_tokenizer([folder / "scenes"], folder / "out", SMALL)
    return folder


def test_a_resumed_training_equals_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    options = replace(SMALL, steps=4, save_every=2)

    def stop_at_three(step: int, loss: float) -> None:
        if step == 3:
            raise Stop

    train_tokenizer([trained / "scenes"], tmp_path / "whole", options)
    with pytest.raises(Stop):
        train_tokenizer([trained / "scenes"], tmp_path / "again", options, stop_at_three)
    curve = tmp_path / "again" / "loss.jsonl"
    curve.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3)))
    steps: list[int] = []
    train_tokenizer(
        [trained / "scenes"], tmp_path / "again", options, lambda step, loss: steps.append(step)
    )
    assert steps == [3, 4]
    whole, again = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "again")
    )
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(again["model"][name], tensor, rtol=0, atol=0)
    assert [json.loads(line)["step"] for line in curve.read_text().splitlines()] == [1, 2]


def test_a_finished_tokenizer_is_not_exported_again(trained: Path) -> None:
    """Another export has other bytes, by which shards know their tokenizer."""
    before = VisualTokenizer(trained / "out").encoder_digest
    train_tokenizer([trained / "scenes"], trained / "out", SMALL)
    assert VisualTokenizer(trained / "out").encoder_digest == before
    with pytest.raises(BadInput, match="other options"):
        train_tokenizer([trained / "scenes"], trained / "out", replace(SMALL, steps=9))


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BadInput, match="cannot be made a folder"):
        train_tokenizer([tmp_path], tmp_path / "out", SMALL)
    assert (tmp_path / "out").read_text() == "mine"


def _middle_bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


STATES: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("no state"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "flipped": lambda path: path.write_bytes(_middle_bit_flipped(path.read_bytes())),
    "list": lambda path: torch.save([1, 2], path),
    "foreign": lambda path: torch.save({"options": Path}, path),
    "other": lambda path: torch.save(torch.load(path, weights_only=True) | {"model": {}}, path),
}


@pytest.mark.parametrize("damage", STATES)
def test_a_damaged_state_is_named(trained: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.pt"
    shutil.copy(trained / "out" / "state.pt", path)
    STATES[damage](path)
    with pytest.raises(BadInput, match=r"state\.pt (is damaged|is no state|does not fit).*remove it"):
        train_tokenizer([trained / "scenes"], tmp_path, SMALL)
