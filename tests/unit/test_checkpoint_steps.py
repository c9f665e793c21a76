"""Names of checkpoints as trainers write them, and names that only look so."""

import pytest

from sar_eval.checkpoint_steps import step_in, training_of


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-2000", 2000),
        ("out/sft/checkpoint-2000", 2000),
        ("out/sft/checkpoint-2000/", 2000),
        ("ckpt_5", 5),
        ("iter_0001000", 1000),
        ("iteration 7", 7),
        ("global_step2000", 2000),
        ("globalstep-12", 12),
        ("epoch=3-step=2000.ckpt", 2000),
        ("epoch_3", 3),
        ("step-10k", 10_000),
        ("SFT-Step_2M", 2_000_000),
        ("2000", 2000),
        ("out/10k", 10_000),
        ("2000.safetensors", 2000),
        ("step_2000.safetensors", 2000),
        ("ORG/NAME@step1000-tokens4B", 1000),
        ("ORG/NAME/checkpoint-7@0123abc", 7),
        ("checkpoint-1000/step-5", 5),
        ("runs/step-5/model", 5),
        (r"C:\runs\checkpoint-30", 30),
        ("sft-checkpoint-300-merged", 300),
        ("step-0", 0),
    ],
)
def test_finds_the_step(name: str, step: int) -> None:
    assert step_in(name) == step


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "demo:sft",
        "ORG/SimpleAR-0.5B-RL",
        "ORG/NAME@0123abc",
        "timestep-20",
        "2024/model",
        "multistep5",
        "step-0.5B",
        "checkpoint-1.5",
        "checkpoint-7b",
        "steps",
        "step-" + "9" * 400,
        "step-\N{SUPERSCRIPT TWO}",
    ],
)
def test_finds_none(name: str) -> None:
    assert step_in(name) is None


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("out/lr1/checkpoint-2000", "out/lr1/checkpoint-*"),
        ("out/lr1/iter_0001000/model", "out/lr1/iter_*/model"),
        ("ORG/NAME/step-10k@0123abc", "ORG/NAME/step-*"),
        ("ORG/NAME@step1000-tokens4B", "ORG/NAME@step*-tokens4B"),
        ("out/2000", "out/*"),
        ("demo:sft", "demo:sft"),
    ],
)
def test_checkpoints_of_one_training_have_one_name(name: str, training: str) -> None:
    assert training_of(name) == training
