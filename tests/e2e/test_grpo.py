"""GRPO as a whole: it learns what it is rewarded for, and nothing else; it resumes; ranks agree."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from sar_eval.errors import BadInput, GateFailed, Incomplete
from sar_eval.families.simplear import find_checkpoint
from sar_eval.rl import grpo as grpo_module
from sar_eval.rl.engine_gap import StaleEngine
from sar_eval.rl.grpo import GrpoTrainer
from sar_eval.rl.grpo_state import TrainingState
from sar_eval.rl.policy import GuidedPolicy
from tests.grpo_runs import setup_of, train, write_recipe

SECONDS = "seconds/"
KILLS = int(os.environ.get("SAR_EVAL_KILLS", "8"))


def _steps(out: Path) -> pd.DataFrame:
    """The figures of a run's steps without its seconds."""
    table = pd.read_parquet(out / "steps.parquet")
    return table[[name for name in table.columns if not name.startswith(SECONDS)]]


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(find_checkpoint(str(out)).read_weights("cpu", torch.float32))


@pytest.mark.slow
def test_it_learns_a_rigged_reward_and_a_placebo_does_not(tmp_path, one_thread) -> None:
    """The share of even codes, from a half to nearly all in 20 steps of 32 pictures."""
    tables = {
        "prompts": {"suite": "shapes-train.jsonl", "split": "seen"},
        "protocol": {"temperature": 1.0},
    }
    options = {"steps": 20, "group": 8, "micro": 32, "warmup": 1, "learning_rate": 5e-4, "save_every": 100}
    setup = setup_of("demo:pretrain", tmp_path / "a", tables=tables, **options)
    train(setup, tmp_path / "real")
    reward = _steps(tmp_path / "real")["reward"]
    assert reward[0] < 0.7
    assert reward[-5:].mean() > 0.9
    setup = setup_of("demo:pretrain", tmp_path / "b", tables=tables, placebo=True, **options)
    train(setup, tmp_path / "placebo")
    assert _steps(tmp_path / "placebo")["reward"][-5:].mean() < 0.75


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    more = {"beta": 0.05, "reference_every": 2, "entropy": 0.01, "entropy_target": 3.0}
    whole = setup_of(tiny_checkpoint, tmp_path / "recipe", **more)
    train(whole, tmp_path / "whole")

    def stop(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 3:  # its state is not saved yet
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(whole, tmp_path / "parts", stop)
    assert TrainingState(tmp_path / "parts").newest() == 2
    train(whole, tmp_path / "parts")
    pd.testing.assert_frame_equal(_steps(tmp_path / "whole"), _steps(tmp_path / "parts"))
    for name, tensor in _weights(tmp_path / "whole").items():
        assert torch.equal(tensor, _weights(tmp_path / "parts")[name]), name
    for path in sorted((tmp_path / "whole" / "samples").iterdir()):
        first, second = (pd.read_parquet(p) for p in (path, tmp_path / "parts" / "samples" / path.name))
        pd.testing.assert_frame_equal(first, second)


@pytest.mark.slow
def test_a_run_that_goes_on_where_it_was_watched_keeps_that_steps_pictures(
    tiny_checkpoint, tmp_path
) -> None:
    more = '[holdout]\nbenchmark = "shapes"\nmax_prompts = 4\nevery = 2\nimages_of_the_protocol = true\n'
    setup = setup_of(tiny_checkpoint, tmp_path / "recipe", more)

    def stop(step: int, steps: int, figures: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(setup, tmp_path / "out", stop)
    watched = tmp_path / "out" / "samples" / "step-000002.parquet"
    before = pd.read_parquet(watched)
    assert set(before["kind"]) == {"watch", "best", "worst"}
    smaller = setup_of(tiny_checkpoint, tmp_path / "recipe", more, micro=4)  # needs less memory
    train(smaller, tmp_path / "out")
    pd.testing.assert_frame_equal(before, pd.read_parquet(watched))
    assert pd.read_parquet(tmp_path / "out" / "holdout.parquet")["step"].tolist() == [0, 2, 4]


def test_too_little_memory_says_what_to_change(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    setup = setup_of(tiny_checkpoint, tmp_path)

    def too_large(self, *arguments, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(GuidedPolicy, "forward", too_large)
    with pytest.raises(Incomplete, match=r"8 pictures a forward pass: lower grpo\.micro"):
        train(setup, tmp_path / "out")


def test_several_updates_a_rollout_leave_the_ratio_of_one(tiny_checkpoint, tmp_path) -> None:
    setup = setup_of(tiny_checkpoint, tmp_path, steps=1, updates=3, minibatch=8, beta=0.1)
    train(setup, tmp_path / "out")
    row = _steps(tmp_path / "out").iloc[0]
    assert row["ratio_max"] > 1.0001
    assert row["kl"] > 0
    assert row["gap"] < 1e-4


def test_an_engine_that_misses_an_update_is_caught(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    setup, calls = setup_of(tiny_checkpoint, tmp_path, learning_rate=1e-2), []

    def synchronise(self, engine) -> None:
        calls.append(engine)
        if len(calls) == 1:  # at the start; all later ones are lost
            sync(self, engine)

    sync = GrpoTrainer._synchronise
    monkeypatch.setattr(GrpoTrainer, "_synchronise", synchronise)
    with pytest.raises(StaleEngine, match="off by"):
        train(setup, tmp_path / "out")
    assert (
        len(_steps(tmp_path / "out")) == 1
    )  # the first step was fine, the second trained on nothing stale


def test_a_gradient_that_is_no_number_skips_the_step_and_the_third_stops(
    tiny_checkpoint, tmp_path, monkeypatch
) -> None:
    setup = setup_of(tiny_checkpoint, tmp_path, steps=6)
    original = grpo_module.samples_of

    def spoilt(*arguments):
        return [sample._replace(advantage=float("nan")) for sample in original(*arguments)]

    monkeypatch.setattr(grpo_module, "samples_of", spoilt)
    with pytest.raises(Incomplete, match="3 steps in a row were skipped"):
        train(setup, tmp_path / "out")
    skipped = _steps(tmp_path / "out")["skipped"]
    assert skipped.str.contains("gradient's norm is nan").tolist() == [True] * 3
    state = TrainingState(tmp_path / "out")
    saved, start = state.load(state.newest(), "cpu")["policy"], _weights(tiny_checkpoint)
    assert all(torch.equal(saved[f"model.{name}"], tensor) for name, tensor in start.items())


def test_equal_rewards_teach_nothing_and_stop_nothing(tiny_checkpoint, tmp_path) -> None:
    more = "quantise = 1000.0\n"
    train(setup_of(tiny_checkpoint, tmp_path, more), tmp_path / "out")
    steps = _steps(tmp_path / "out")
    assert steps["varied"].tolist() == [0.0] * 4
    assert steps["skipped"].str.contains("all the same").all()
    start, end = _weights(tiny_checkpoint), _weights(tmp_path / "out")
    assert all(torch.equal(end[name], tensor) for name, tensor in start.items())


def test_a_reward_that_is_lost_too_often_stops_the_run(tiny_checkpoint, tmp_path) -> None:
    more = '[rewards.even.options]\noffset = "not a number"\n'
    with pytest.raises(Incomplete, match="has no score for 16 of 16"):
        train(setup_of(tiny_checkpoint, tmp_path, more), tmp_path / "out")


def test_a_finished_run_and_other_settings_are_refused(tiny_checkpoint, tmp_path) -> None:
    train(setup_of(tiny_checkpoint, tmp_path, steps=1), tmp_path / "out")
    with pytest.raises(BadInput, match="already a finished checkpoint"):
        train(setup_of(tiny_checkpoint, tmp_path, steps=1), tmp_path / "out")
    (tmp_path / "out" / "sar_eval.json").unlink()
    with pytest.raises(BadInput, match=r"options\.learning_rate"):
        train(setup_of(tiny_checkpoint, tmp_path, steps=1, learning_rate=0.5), tmp_path / "out")


def _torchrun(recipe: Path, checkpoint: Path, out: Path, ranks: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    words += ["-m", "sar_eval", "train", "grpo", str(recipe), "--ckpt", str(checkpoint), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        [*words, "--anyway"], capture_output=True, text=True, timeout=250, env=environment, check=False
    )


@pytest.mark.slow
def test_two_ranks_give_what_one_gives(tiny_checkpoint, tmp_path, one_thread) -> None:
    """Groups lie on either rank; gradients are summed over gloo, so weights agree to rounding."""
    more = '[holdout]\nbenchmark = "shapes"\nmax_prompts = 6\nevery = 2\nimages_of_the_protocol = true\n'
    setup = setup_of(tiny_checkpoint, tmp_path / "recipe", more, prompts=3, beta=0.05, minibatch=6)
    train(setup, tmp_path / "one")
    recipe = setup.recipe.path
    changed = "prompts = 3\nbeta = 0.05\nminibatch = 6\n"
    recipe.write_text(recipe.read_text().replace("prompts = 4\n", changed))
    done = _torchrun(recipe, tiny_checkpoint, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr
    one, two = _steps(tmp_path / "one"), _steps(tmp_path / "two")
    pd.testing.assert_frame_equal(one, two, rtol=1e-3, atol=1e-5)
    holdout = [pd.read_parquet(tmp_path / name / "holdout.parquet") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*holdout)


def _command(recipe: Path, checkpoint: Path, out: Path) -> list[str]:
    words = ["train", "grpo", str(recipe), "--ckpt", str(checkpoint), "--out", str(out), "--anyway"]
    return [sys.executable, "-m", "sar_eval", *words]


@pytest.mark.slow
def test_the_command_is_interrupted_and_killed_and_goes_on(tiny_checkpoint, tmp_path) -> None:
    """Ctrl-C ends after the step at hand with exit code 3; kill -9 loses at most the step at hand."""
    recipe, out = write_recipe(tmp_path / "recipe"), tmp_path / "out"
    recipe.write_text(recipe.read_text().replace("steps = 4", "steps = 400"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        _command(recipe, tiny_checkpoint, out), stderr=subprocess.PIPE, text=True, env=environment
    )
    _wait_for_state(out, 2)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=100)
    assert running.returncode == 3, errors
    assert "goes on from there" in errors
    interrupted = TrainingState(out).newest()
    assert f"interrupted after step {interrupted};" in errors
    running = subprocess.Popen(_command(recipe, tiny_checkpoint, out), env=environment)
    _wait_for_state(out, interrupted + 2)
    running.kill()
    running.wait(timeout=60)
    steps = _steps(out)
    assert steps["step"].tolist() == list(range(1, len(steps) + 1))
    assert 0 <= len(steps) - TrainingState(out).newest() <= 1


def _wait_for_state(out: Path, step: int) -> None:
    end = time.monotonic() + 100
    while TrainingState(out).newest() < step:
        assert time.monotonic() < end, "no state was written"
        time.sleep(0.05)


def _train_in_process(recipe_folder: Path, checkpoint: Path, out: Path) -> None:
    torch.set_num_threads(1)
    train(setup_of(checkpoint, recipe_folder, steps=12), out)


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(tiny_checkpoint, tmp_path, one_thread) -> None:
    """Weights, figures and pictures are those of a run that nobody killed; seconds aside."""
    train(setup_of(tiny_checkpoint, tmp_path / "recipe", steps=12), tmp_path / "whole")
    context, rng, kills = multiprocessing.get_context("forkserver"), random.Random(1), 0
    context.set_forkserver_preload(["tests.grpo_runs"])
    arguments = (tmp_path / "recipe", tiny_checkpoint, tmp_path / "out")
    longest = 4.0
    while True:
        process = context.Process(target=_train_in_process, args=arguments)
        process.start()
        process.join(rng.uniform(0.3, longest) if kills < KILLS else 200)
        if process.exitcode is None:
            process.kill()
            process.join(60)
            kills += 1
        assert process.exitcode in (0, -signal.SIGKILL)
        if not (tmp_path / "out" / "sar_eval.json").exists():
            continue
        if kills >= KILLS:
            break
        shutil.rmtree(tmp_path / "out")  # it was done too soon: the rest is killed in another run
        longest *= 0.8
    pd.testing.assert_frame_equal(_steps(tmp_path / "whole"), _steps(tmp_path / "out"))
    ours, theirs = _weights(tmp_path / "whole"), _weights(tmp_path / "out")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    for path in sorted((tmp_path / "whole" / "samples").iterdir()):
        other = tmp_path / "out" / "samples" / path.name
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(other))
    assert not list((tmp_path / "out").rglob("*.tmp"))


ODD = f"{Path(__file__).parents[1] / 'odd_codes.py'}:JUDGE"


@pytest.mark.slow
def test_a_reward_that_is_hacked_stops_the_run_and_the_best_weights_are_kept(tmp_path, one_thread) -> None:
    """What is rewarded is the share of even codes; the hold-out's further judge wants odd ones."""
    more = f'''[holdout]
benchmark = "shapes"
judges = ["{ODD}"]
max_prompts = 24
every = 4
images_of_the_protocol = true
'''
    options = {"steps": 20, "group": 8, "warmup": 1, "micro": 32}
    out = tmp_path / "out"
    with pytest.raises(GateFailed, match="while the hold-out fell"):
        train(setup_of("demo:pretrain", tmp_path / "recipe", more, **options), out)
    steps = len(_steps(out))
    assert steps < 20
    assert not (out / "sar_eval.json").exists()
    best = json.loads((out / "best" / "sar_eval.json").read_text())["training"]
    assert best["step"] < steps
    assert find_checkpoint(str(out / "best")).digest
    with pytest.raises(BadInput, match="stopped by its guard"):
        train(setup_of("demo:pretrain", tmp_path / "recipe", more, **options), out)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["state", "steps.parquet", "samples"])
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    tiny_checkpoint, tmp_path, faulty_disk, where
) -> None:
    recipe, out = write_recipe(tmp_path / "recipe"), tmp_path / "out"
    words = _command(recipe, tiny_checkpoint, out)
    after = 2 if where != "samples" else 0
    environment = faulty_disk("fsync", "ENOSPC", where, after)
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert _steps(out)["step"].tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_test_prompts_are_refused_and_marked_where_allowed(tiny_checkpoint, tmp_path) -> None:
    recipe = write_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace('"prompts.jsonl"', '"shapes"'))
    words = _command(recipe, tiny_checkpoint, tmp_path / "out")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--train-on-test" in done.stderr
    done = subprocess.run(
        [*words, "--train-on-test", "--steps", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made_by = json.loads((tmp_path / "out" / "sar_eval.json").read_text())["training"]
    assert made_by["test_prompts"] == 360
    assert "stand in a test suite" in (tmp_path / "out" / "training.html").read_text()
    marked = find_checkpoint(str(tmp_path / "out"))
    assert any("was trained on 360 prompts" in note for note in marked.notes)
    after = setup_of(marked.folder, tmp_path / "next")  # on other prompts: what it knows, it keeps
    assert after.training()["test_prompts"] == 360
    assert any("The start was trained on 360" in note for note in after.notes())
