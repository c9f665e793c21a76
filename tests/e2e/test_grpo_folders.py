"""The folder that `train grpo` and `train dpo` write: nobody else's, one process's, whole, anywhere."""

import resource
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, RunLocked, StorageFailed
from sar_eval.families.simplear import find_checkpoint
from sar_eval.rl.dpo import DpoOptions, dpo
from sar_eval.rl.grpo_state import TrainingState
from sar_eval.rl.policy_model import load_policy, save_policy
from sar_eval.storage.lock import training_lock
from tests.grpo_runs import setup_of, train


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("trainer", ["grpo", "dpo"])
def test_somebody_elses_checkpoint_is_not_overwritten(tiny_checkpoint, tmp_path, trainer) -> None:
    """One from the hub has no `sar_eval.json`: that alone does not make a folder free."""
    out = tmp_path / "theirs"
    out.mkdir()
    for name in ("config.json", "model.safetensors"):
        (out / name).write_bytes((tiny_checkpoint / name).read_bytes())
    before = _contents(out)
    setup = setup_of(tiny_checkpoint, tmp_path / "recipe")
    calls = {
        "grpo": lambda: train(setup, out),
        "dpo": lambda: dpo([tmp_path / "run"], str(tiny_checkpoint), out, DpoOptions(steps=1)),
    }
    with pytest.raises(BadInput, match=r"no training's folder: it has 'config\.json'"):
        calls[trainer]()
    assert _contents(out) == before


def _stop_after_one(step: int, steps: int, figures: dict[str, float]) -> None:
    if step == 2:
        raise KeyboardInterrupt


def test_a_run_goes_on_alone_and_with_its_own_prompts(tiny_checkpoint, tmp_path) -> None:
    setup, out = setup_of(tiny_checkpoint, tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(setup, out, _stop_after_one)
    assert TrainingState(out).newest() == 1
    with training_lock(out), pytest.raises(RunLocked, match="another process works in"):
        train(setup, out)
    prompts = setup.recipe.suite
    prompts.write_text(prompts.read_text().replace("blurred", "crooked"))
    changed = type(setup).of(setup.recipe, str(tiny_checkpoint))
    with pytest.raises(BadInput, match="prompts_digest"):
        train(changed, out)


def test_a_checkpoint_that_was_written_through_a_link_finds_its_tokenizer(
    tiny_checkpoint, tmp_path
) -> None:
    (tmp_path / "disk" / "a" / "b").mkdir(parents=True)
    (tmp_path / "scratch").symlink_to(tmp_path / "disk" / "a" / "b")
    out = tmp_path / "scratch" / "ö ✓"
    train(setup_of(tiny_checkpoint, tmp_path / "recipe", steps=1), out)
    assert find_checkpoint(str(out)).visual_folder == find_checkpoint(str(tiny_checkpoint)).visual_folder


def test_a_full_disk_at_the_weights_is_told(tiny_checkpoint, tmp_path) -> None:
    """They are written by a library whose errors are no OSError."""
    checkpoint = find_checkpoint(str(tiny_checkpoint))
    protocol = setup_of(tiny_checkpoint, tmp_path / "recipe").protocol
    policy, before = load_policy(checkpoint, protocol), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(StorageFailed, match=r"cannot write weights to .*: it goes on from"):
            save_policy(policy, checkpoint, protocol, tmp_path / "out", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out" / "sar_eval.json").exists()
