"""Every shipped GRPO recipe loads, and those of SimpleAR say what they are."""

from itertools import product
from pathlib import Path

import pytest

from sar_eval import discover
from sar_eval.errors import BadInput
from sar_eval.recipe import load_recipe, training_recipes
from sar_eval.rewards.holdout import Holdout
from sar_eval.rewards.train_prompts import TrainPrompts
from sar_eval.rl.grpo_recipe import GrpoRecipe, load_grpo_recipe
from sar_eval.rl.grpo_run import GrpoSetup, own_device
from sar_eval.rl.policy import check_protocol
from tests.grpo_runs import write_recipe

SIMPLEAR = [
    f"simplear-0.5b-{kind}{size}" for kind, size in product(("clip", "hps", "geneval"), ("", "-512"))
]
RESOLUTION = 1024  # of SimpleAR's last stage


@pytest.mark.parametrize("name", sorted(training_recipes()))
def test_a_shipped_recipe_is_one(name: str) -> None:
    recipe = load_grpo_recipe(name)
    check_protocol(recipe.protocol_of(RESOLUTION), recipe.options.policy)
    assert recipe.name == name
    assert all(spec.judge in discover.names("judges") for spec in recipe.rewards)
    assert recipe.holdout is not None


def test_the_reference_s_setting_has_its_names() -> None:
    assert set(SIMPLEAR) < training_recipes().keys()


def test_what_is_kept_of_the_reference() -> None:
    """config_grpo_clip.yaml at d56b6e5, and the defaults of its trl where it sets nothing."""
    options = load_grpo_recipe("simplear-0.5b-clip").options
    assert (options.group, options.learning_rate, options.updates) == (4, 1e-6, 1)
    assert (options.schedule, options.warmup / options.steps) == ("cosine", 0.1)
    assert (options.kl, options.beta, options.clip_low, options.clip_high) == ("k3", 0.04, 0.2, 0.2)
    assert (options.precision, options.loss, options.scale) == ("bfloat16", "clip", "group")


@pytest.mark.parametrize("name", SIMPLEAR)
def test_simplears_are_drawn_as_geneval_is(name: str) -> None:
    """Rollouts and hold-out share one engine, and the prompts are none of the benchmark's."""
    recipe = load_grpo_recipe(name)
    protocol, benchmark = recipe.protocol_of(RESOLUTION), load_recipe("geneval")
    assert {key: getattr(protocol, key) for key in benchmark.protocol} == dict(benchmark.protocol)
    assert protocol.resolution == (512 if name.endswith("-512") else RESOLUTION)
    holdout = Holdout.read(recipe.holdout, protocol, RESOLUTION, 0, name)
    assert holdout.draws_like(protocol)
    assert {judge.device for judge in (*holdout.judges, *recipe.rewards)} == {"cuda"}
    prompts = TrainPrompts.read(recipe.suite, seed=0, holdout=[holdout.suite])
    assert len(prompts.prompts) == 2770


@pytest.mark.parametrize("name", SIMPLEAR)
def test_simplears_are_watched_by_a_judge_that_is_not_rewarded(name: str) -> None:
    recipe = load_grpo_recipe(name)
    rewarded = {spec.name for spec in recipe.rewards}
    assert set(recipe.holdout.judges) - rewarded


@pytest.mark.parametrize("kind", ["clip", "hps", "geneval"])
def test_both_resolutions_differ_in_nothing_else(kind: str) -> None:
    def setting(recipe: GrpoRecipe) -> dict:
        found = recipe.settings()
        return {
            **found,
            "name": "",
            "protocol": {**found["protocol"], "resolution": 0},
            "options": {**found["options"], "gradient_checkpointing": None},
        }

    large, small = (load_grpo_recipe(f"simplear-0.5b-{kind}{size}") for size in ("", "-512"))
    assert setting(large) == setting(small)
    assert (large.options.gradient_checkpointing, small.options.gradient_checkpointing) == (True, False)


def test_vllm_is_refused_on_several_ranks(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path, '[engine]\nname = "vllm"\n')
    recipe = load_grpo_recipe(str(tmp_path / "recipe.toml"))
    setup = GrpoSetup.of(recipe, str(tiny_checkpoint))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="one process alone"):
        setup.engine(setup.protocol)


def test_a_rank_names_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device() == "cuda:3"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert own_device() == "cpu"
