"""Recipes of GRPO: those that are shipped, and what is said of those that cannot work."""

from dataclasses import fields
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, UnknownName
from sar_eval.recipe import training_recipes
from sar_eval.rl.grpo_recipe import GrpoOptions, load_grpo_recipe
from sar_eval.rl.losses import LossOptions
from sar_eval.rl.policy import MODES, check_protocol
from sar_eval.rl.policy_update import learning_rate
from tests.grpo_runs import setup_of, write_recipe


@pytest.mark.parametrize("name", training_recipes())
def test_a_shipped_recipe_can_be_read(name) -> None:
    recipe = load_grpo_recipe(name)
    assert recipe.suite.is_file()
    assert recipe.rewards
    assert recipe.holdout is not None  # a shipped example watches itself
    check_protocol(recipe.protocol_of(1024), recipe.options.policy)


def test_values_of_the_command_line_replace_the_files(tmp_path) -> None:
    path = str(write_recipe(tmp_path))
    changes = {
        "grpo": {"steps": 9},
        "rewards": {"even": {"weight": 2.0}},
        "holdout": {"benchmark": "shapes"},
    }
    recipe = load_grpo_recipe(path, changes)
    assert recipe.options.steps == 9
    assert recipe.options.prompts == 4
    assert recipe.rewards[0].weight == 2.0
    assert recipe.rewards[0].judge.endswith("even_codes.py:JUDGE")
    assert recipe.holdout is not None


def test_a_preset_of_the_protocol_is_taken_over(tmp_path) -> None:
    changes = {"protocol": {"name": "simplear", "guidance": 3.0}}
    protocol = load_grpo_recipe(str(write_recipe(tmp_path)), changes).protocol_of(1024)
    assert protocol.prefix == "A highly realistic image of "
    assert protocol.guidance == 3.0
    assert protocol.resolution == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grpo": {"stepz": 3}}, "stepz"),
        ({"grpo": {"steps": 0}}, r"grpo\.steps"),
        ({"grpo": {"steps": "ten"}}, r"grpo\.steps.*'ten'"),
        ({"grpo": {"learning_rate": float("nan")}}, "learning_rate"),
        ({"grpo": {"learning_rate": -1.0}}, "learning_rate"),
        ({"grpo": {"group": 1}}, r"grpo\.group"),
        ({"grpo": {"loss": "ppo"}}, r"grpo\.loss"),
        ({"grpo": {"policy": "exact"}}, r"grpo\.policy"),
        ({"grpo": {"keep": 9}}, "more than a group"),
        ({"grpo": {"keep": 3}}, "even number"),
        ({"grpo": {"keep": 1}}, "no other to be better than"),
        ({"grpo": {"clip_low": 1.0}}, "ratio cannot lie below 0"),
        ({"grpo": {"beta": 0.1, "kl": "off"}}, "which"),
        ({"grpo": {"reference_every": 5}}, "makes no use"),
        ({"grpo": {"warmup": 4}}, "warmup is 4 of 4 steps"),
        ({"protocol": {"temperatur": 1.0}}, "unknown key protocol.temperatur"),
        ({"protocol": {"temperature": -1.0}}, "temperature"),
        ({"protocol": {"guidance": "strong"}}, "guidance"),
        ({"protocol": {"prefixes": "nobody"}}, "nobody"),
        ({"prompts": {"suite": 3}}, r"prompts\.suite"),
        ({"prompts": {"suit": "a.jsonl"}}, "suit"),
        ({"engine": {"dtype": "int8"}}, r"engine\.dtype"),
        ({"holdout": {"every": 3}}, "benchmark"),
        ({"holdout": {"benchmark": "shapes", "every": 0}}, r"holdout\.every"),
        ({"rewards": {"nobody": {}}}, "nobody"),
        ({"rewards": {"even": {"weight": "much"}}}, r"rewards\.even\.weight"),
        ({"extra": {}}, "extra"),
    ],
)
def test_what_cannot_work_is_named(tmp_path, changes, words) -> None:
    with pytest.raises((BadInput, UnknownName), match=words) as caught:
        load_grpo_recipe(str(write_recipe(tmp_path)), changes)
    assert "recipe.toml" in str(caught.value) or "nobody" in words


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UnknownName, match="shapes"):
        load_grpo_recipe("shape")


def test_a_recipe_without_rewards_says_what_to_add(tmp_path) -> None:
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().partition("[rewards")[0] + "[rewards]\n")
    with pytest.raises(BadInput, match=r"rewards\.shapes-soft|judge or a scorer"):
        load_grpo_recipe(str(path))


def test_the_recipe_and_the_loss_know_the_same_words() -> None:
    """What the recipe lets through, the pure functions take."""
    for name in ("clip", "cispo"):
        for level in ("token", "sequence"):
            for kl in ("k3", "js", "off"):
                LossOptions(loss=name, level=level, kl=kl)
    assert {field.name for field in fields(LossOptions)} <= set(GrpoOptions.__struct_fields__)
    assert MODES == ("guided", "detached", "conditional", "unguided")


def test_the_rate_warms_up_and_then_stays_or_falls_to_a_tenth() -> None:
    constant = GrpoOptions(steps=100, learning_rate=1.0, warmup=4)
    assert [learning_rate(constant, n) for n in (0, 3, 4, 99)] == [0.2, 0.8, 1.0, 1.0]
    cosine = GrpoOptions(steps=100, learning_rate=1.0, warmup=0, schedule="cosine")
    assert learning_rate(cosine, 0) == 1.0
    assert learning_rate(cosine, 50) == pytest.approx(0.55)
    assert learning_rate(cosine, 100) == pytest.approx(0.1)


def test_paths_are_those_of_the_recipe_not_of_the_shell(tmp_path, monkeypatch) -> None:
    path = write_recipe(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    assert load_grpo_recipe("there/recipe.toml").suite == Path("there/prompts.jsonl")
    assert path.is_file()


def test_a_contrast_without_guidance_is_refused(tiny_checkpoint, tmp_path) -> None:
    with pytest.raises(BadInput, match="nothing to contrast"):
        setup_of(
            tiny_checkpoint, tmp_path, tables={"protocol": {"guidance": 1.0}}, token_weights="contrast"
        )
