"""docs/examples/grpo_with_trl.py: TRL's own trainer trains a guided policy with our engine and judge."""

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sar_eval.families.simplear import find_checkpoint
from sar_eval.types import Prompt, make_draw

ROOT = Path(__file__).parents[2]
GAP = "sampling/sampling_logp_difference/mean"  # of engine and trainer, nats a token
STEPS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM"),  # where 0.32 is installed
]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, with a few pictures a step."""
    spec = importlib.util.spec_from_file_location(
        "grpo_with_trl", ROOT / "docs" / "examples" / "grpo_with_trl.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PROMPTS", 3)
    monkeypatch.setattr(module, "PICTURES", 4)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    return module


Logged = Callable[[], list[dict[str, float]]]


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Logged:
    """What TRL printed of each step."""

    def read() -> list[dict[str, float]]:
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{'loss'")]
        return [{key: float(value) for key, value in ast.literal_eval(line).items()} for line in lines]

    return read


def drawn(module: ModuleType, checkpoint: str) -> Any:
    """A picture of a checkpoint."""
    engine = module.discover.load("engines", "native")(checkpoint, module.PROTOCOL)
    with engine:
        (found,) = engine.generate([make_draw(Prompt("a", "a photo of a red circle"), 0, 0)])
    assert found.image is not None
    return found


def test_trl_trains_our_policy(example: ModuleType, logged: Logged, tmp_path: Path) -> None:
    example.main(tmp_path / "out", STEPS)
    steps = logged()
    assert len(steps) == STEPS
    assert max(step[GAP] for step in steps) < 1e-4  # the engine draws with the weights that are trained
    assert all(0 <= step["reward"] <= 1 and step["completions/mean_length"] == 64 for step in steps)
    assert steps[0]["kl"] == 0  # the reference is the start
    assert steps[-1]["kl"] > 0
    before, after = (
        find_checkpoint(name, "").read_weights("cpu", torch.float32)
        for name in ("demo:pretrain", str(tmp_path / "out"))
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert drawn(example, str(tmp_path / "out")).tokens


def test_an_engine_that_goes_stale_shows_in_trl_s_log(
    example: ModuleType, logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.PictureTrainer, "sync_weights", lambda self: None)
    example.main(tmp_path / "out", STEPS)
    first, *_, last = logged()
    assert first[GAP] < 1e-4
    assert last[GAP] > 1e-3
