"""`benchmarks/speed/grpo.py`: real steps of the loop, and the table made of them."""

from pathlib import Path

import pytest

from benchmarks.speed.grpo import (
    STAGES,
    Measured,
    fastest,
    measure,
    recipe_of,
    table,
    variants,
)
from sar_eval.rl.grpo_recipe import load_grpo_recipe
from tests.wide_checkpoint import write_checkpoint, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def _seconds(step: float) -> dict[str, float]:
    return dict.fromkeys(STAGES, step / len(STAGES))


def test_variants_differ_from_the_recipe_in_one_choice(tmp_path: Path) -> None:
    recipe = load_grpo_recipe(str(write_recipe(tmp_path / "a.toml", 64, "float32", checkpointing=True)))
    found = dict(variants(recipe.options, 6.0))
    assert list(found) == [
        *("recipe (guided)", "detached", "conditional", "unguided", "keep 2 of 4", "micro 4", "micro 16"),
        *("no reference", "checkpointing off"),
    ]
    for name, changes in found.items():
        changed = recipe_of(str(tmp_path / "a.toml"), 4, changes)
        assert changed.holdout is None, name
        assert changed.options.steps == 4
        assert not changed.options.drop_equal_groups
    assert [name for name, _ in variants(recipe.options, 1.0) if "guided" in name] == ["recipe (guided)"]


def test_ratios_are_against_the_first_variant() -> None:
    steps = [Measured("slow", 8, _seconds(s), 3 * 10**9) for s in (4.0, 2.0, 3.0)]
    printed = table([Measured("recipe", 8, _seconds(1.0), 0), fastest(steps)]).splitlines()
    assert printed[2].startswith("| recipe | 1.00 | 1.00x | 0.20 |")
    assert printed[2].endswith("| 8.00 | - |")
    assert printed[3] == "| slow | 2.00 | 2.00x | 0.40 | 0.40 | 0.40 | 0.40 | 0.40 | 2.00x | 4.00 | 3.0 |"


@pytest.mark.slow
def test_steps_of_a_wide_checkpoint_are_timed(tmp_path: Path) -> None:
    """What tests/gpu does with the real shape, on a small one."""
    ckpt = write_checkpoint(tmp_path / "wide", "tiny")
    recipe = write_recipe(tmp_path / "wide.toml", 64, "float32", checkpointing=True)
    changes = {"grpo": {"prompts": 1, "group": 2, "micro": 2}}
    (step,) = measure("tiny", recipe_of(str(recipe), 2, changes), str(ckpt))
    assert step.images == 2
    assert min(step.seconds[stage] for stage in ("rollout", "train", "sync")) > 0
    assert step.step_s < 60
