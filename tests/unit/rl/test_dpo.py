"""Direct preference optimisation on a tiny checkpoint: its pairs, resuming, and what is refused."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.rl import dpo as dpo_module
from sar_eval.rl.dpo import DpoOptions, dpo
from sar_eval.rl.judged_draws import read_judged_run
from sar_eval.rl.policy_model import load_policy
from sar_eval.types import Prompt, make_draw
from tests.judged_runs import PROMPTS, PROTOCOL, judged_run

ROOT = Path(__file__).parents[3]
SCORES = {"a/0": 0.2, "a/1": 0.9, "a/2": 0.8, "a/3": 0.5, "b/0": 0.1, "b/1": 0.6, "b/2": 0.3, "b/3": 0.0}
OPTIONS = DpoOptions(3, batch_size=4, micro=3, pairs_per_prompt=2, learning_rate=1e-3, warmup=0)


class Stop(Exception):
    """Interrupts a training run."""


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    return judged_run(tmp_path / "run", tiny_checkpoint, SCORES)


def _curve(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def test_three_steps_raise_the_margin_of_the_pairs(
    run: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """The implicit rewards start at exactly 0; then every chosen picture gains on its rejected one."""
    dpo([run], str(tiny_checkpoint), tmp_path / "out", OPTIONS)
    first, *_, last = curve = _curve(tmp_path / "out")
    assert [line["step"] for line in curve] == [1, 2, 3]
    assert (first["loss"], first["margin"], first["accuracy"]) == (pytest.approx(math.log(2)), 0, 0)
    assert last["margin"] > 0.1
    assert last["accuracy"] == 1
    assert last["margin"] == pytest.approx(last["chosen"] - last["rejected"])
    draws = {draw.draw.key: draw for draw in read_judged_run(run).draws}
    gains = {
        key: _log_prob(tmp_path / "out", d) - _log_prob(tiny_checkpoint, d) for key, d in draws.items()
    }
    for chosen, rejected in (("a/1", "a/0"), ("a/2", "a/3"), ("b/1", "b/3"), ("b/2", "b/0")):
        assert gains[chosen] > gains[rejected] + 1


@torch.no_grad()
def _log_prob(folder: Path, draw) -> float:
    """Of a picture under the runs' protocol, from both branches."""
    checkpoint = find_checkpoint(str(folder))
    prompts = [tuple(tuple(checkpoint.prompt_ids(text)) for text in draw.texts)]
    codes = torch.from_numpy(draw.codes).long()[None]
    return float(load_policy(checkpoint, PROTOCOL)(prompts, codes).log_probs.sum())


def test_the_result_is_a_checkpoint_that_says_what_made_it(
    run: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    facts = dpo([run], str(tiny_checkpoint), out, replace(OPTIONS, steps=1))
    assert (facts["pairs"], facts["prompts_of_a_test"]) == (4, 0)
    stored = json.loads((out / "sar_eval.json").read_text())["training"]
    assert stored["by"] == "dpo"
    assert stored["runs"][0]["by"] == "shapes"
    assert not (out / "state").exists()
    with NativeEngine(str(out), PROTOCOL) as engine:
        [generation] = engine.generate([make_draw(Prompt("a", "a ring"), 0, 0)])
    assert len(generation.tokens) == 16
    with pytest.raises(BadInput, match="already a finished checkpoint"):
        dpo([run], str(tiny_checkpoint), out, OPTIONS)


def test_the_size_of_a_forward_pass_changes_nothing(
    run: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    for micro in (1, 4):
        dpo([run], str(tiny_checkpoint), tmp_path / f"{micro}", replace(OPTIONS, micro=micro))
    one, four = _curve(tmp_path / "1"), _curve(tmp_path / "4")
    for a, b in zip(one, four, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


def test_a_resumed_training_is_the_uninterrupted_one(
    run: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    options = replace(OPTIONS, steps=4, save_every=2, batch_size=3)  # a pass ends within a step

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise Stop

    dpo([run], str(tiny_checkpoint), tmp_path / "whole", options)
    with pytest.raises(Stop):
        dpo([run], str(tiny_checkpoint), tmp_path / "again", options, progress=stop)
    assert len(_curve(tmp_path / "again")) == 3
    with pytest.raises(BadInput, match=r"options\.learning_rate = 0\.001, asked for is 0\.002"):
        dpo([run], str(tiny_checkpoint), tmp_path / "again", replace(options, learning_rate=2e-3))
    steps: list[int] = []
    dpo([run], str(tiny_checkpoint), tmp_path / "again", options, progress=lambda *s: steps.append(s[0]))
    assert steps == [3, 4]
    assert _curve(tmp_path / "again") == _curve(tmp_path / "whole")
    whole, again = _weights(tmp_path / "whole"), _weights(tmp_path / "again")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_a_gradient_that_is_no_number_takes_no_step(
    run: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single one is skipped and named; three in a row stop the training, whose states stay."""
    real, calls = dpo_module.preference_loss, []

    def broken(*args, **kwargs):
        calls.append(1)
        found = real(*args, **kwargs)
        return found._replace(loss=found.loss * torch.nan) if len(calls) != 2 else found

    monkeypatch.setattr(dpo_module, "preference_loss", broken)
    options = replace(OPTIONS, steps=9, micro=4, save_every=1)
    with pytest.raises(BadInput, match="norm was nan in steps 3 to 5: take a lower --learning-rate"):
        dpo([run], str(tiny_checkpoint), tmp_path / "out", options)
    curve = _curve(tmp_path / "out")
    assert [line["taken"] for line in curve] == [False, True, False, False, False]
    assert [line["gradient_norm"] is None for line in curve] == [True, False, True, True, True]
    assert all(line["margin"] > 0 for line in curve[2:]), "the step between them was taken"


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
@pytest.mark.parametrize("policy", ["detached", "conditional"])
def test_other_losses_and_modes_train(
    run: Path, tmp_path: Path, tiny_checkpoint: Path, loss: str, policy: str
) -> None:
    options = replace(
        OPTIONS,
        loss=loss,
        policy=policy,
        bfloat16=policy == "detached",
        gradient_checkpointing=loss == "ipo",
    )
    dpo([run], str(tiny_checkpoint), tmp_path / "out", options)
    assert _curve(tmp_path / "out")[-1]["margin"] > 0


def test_settings_that_no_training_can_use_are_refused(
    run: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    for options, message in [
        ({"loss": "kto"}, "--loss is 'kto': one of dpo, ipo"),
        ({"beta": 0.0}, "--beta is 0.0: it must be above 0"),
        ({"learning_rate": math.inf}, "--learning-rate is inf"),
        ({"min_margin": -1.0}, "--min-margin is -1.0"),
        ({"policy": "free"}, "policy is 'free'"),
        ({"policy": "unguided"}, r"policy 'unguided' with protocol\.guidance 2"),
        (
            {"min_margin": 0.95},
            "of 8 pictures no two of a prompt have scores that differ by --min-margin 0.95",
        ),
    ]:
        with pytest.raises(BadInput, match=message):
            dpo([run], str(tiny_checkpoint), tmp_path / "out", replace(OPTIONS, **options))
    assert not (tmp_path / "out").exists()


def test_runs_that_do_not_go_together_are_refused(run: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    cool = replace(PROTOCOL, temperature=0.5)
    other = judged_run(tmp_path / "cool", tiny_checkpoint, SCORES, protocol=cool)
    greedy = judged_run(tmp_path / "greedy", tiny_checkpoint, SCORES, protocol=replace(cool, temperature=0))
    tested = (Prompt("a", "a photo of a bench"), PROMPTS[1])
    test = judged_run(tmp_path / "test", tiny_checkpoint, SCORES, prompts=tested)
    for runs, ckpt, message in [
        ([run, other], str(tiny_checkpoint), "were drawn under different protocols"),
        ([greedy], str(tiny_checkpoint), r"protocol\.temperature is 0"),
        ([run], "demo:pretrain", "the same code is another piece of a picture"),
        ([test], str(tiny_checkpoint), r"geneval\.jsonl"),
        ([tmp_path], str(tiny_checkpoint), "is not a run folder"),
        ([run], "demo:none", "demo:none"),
    ]:
        with pytest.raises(BadInput, match=message):
            dpo(runs, ckpt, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_truncated_prompts_are_those_of_the_engine(tmp_path: Path, tiny_checkpoint: Path) -> None:
    protocol = replace(PROTOCOL, truncate=True)
    long = (Prompt("a", "a teal ring beside a cross " * 60), PROMPTS[1])
    run = judged_run(tmp_path / "run", tiny_checkpoint, SCORES, prompts=long, protocol=protocol)
    checkpoint = find_checkpoint(str(tiny_checkpoint))
    judged = read_judged_run(run)
    pairs = dpo_module._pairs([judged], OPTIONS)
    training = dpo_module._Training(checkpoint, protocol, pairs, tmp_path, OPTIONS, lambda *_: None)
    with NativeEngine(str(tiny_checkpoint), protocol) as engine:
        for pair in pairs:
            expected = engine.prompt_ids([pair.chosen.draw])
            assert training._prompts(pair.chosen) == tuple(map(tuple, expected))
        assert len(training._prompts(pairs[0].chosen)[0]) == engine.max_prompt_length


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(run: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    dpo([run], str(tiny_checkpoint), tmp_path / "one", OPTIONS)
    words = ["--ckpt", tiny_checkpoint, "--out", tmp_path / "two", "--steps", 3, "--batch-size", 4]
    words += ["--micro", 3, "--pairs-per-prompt", 2, "--learning-rate", 1e-3, "--warmup", 0]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "sar_eval"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launch, "train", "dpo", run, *words]
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for one, two in zip(_curve(tmp_path / "one"), _curve(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-4)
