"""Results that go elsewhere: `track`, `--track` and `--eval-results` on the command line."""

import json
import os
import random
from pathlib import Path

import pytest

from sar_eval.stages.summarize import summarize
from tests.e2e.report_runs import draw_scene, make_prompts, make_run, make_spec

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "json_tracker.py"
EVENTS = "events.out.tfevents.*"


def scenes():
    """What draws the image of a draw."""
    rng = random.Random(0)
    return lambda draw: draw_scene(draw.prompt, rng)


def here() -> dict[str, str]:
    """The environment of a process that starts in another folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A judged run of twelve images."""
    spec = make_spec(checkpoint="runs/sft/checkpoint-400", judge_version="1")
    run = make_run(tmp_path / "run", make_prompts(1), spec, scenes())
    run.write()
    return run.folder.path


@pytest.fixture
def failing(tmp_path: Path) -> str:
    """The name of a tracker that fails."""
    path = tmp_path / "failing.py"
    path.write_text("class Failing:\n    def log(self, run):\n        raise OSError('no route')\n")
    return f"{path}:Failing"


def scalars(folder: Path) -> dict[str, tuple[int, float]]:
    """Step and value of every figure of an event file."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: (point.step, point.value)
        for tag in events.Tags()["scalars"]
        for [point] in [events.Scalars(tag)]
    }


def test_eval_results_are_written_by_summarize(sar_eval_here, finished: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    code, shown = sar_eval_here("summarize", finished, "--eval-results", repository)
    assert code == 0, shown
    assert f"for the hub: {repository}/.eval_results/shapes.yaml, {repository}/README.md" in shown
    code, shown = sar_eval_here("summarize", finished, "--eval-dataset", "org/shapes")
    assert (code, "--eval-dataset is for --eval-results DIR" in shown) == (2, True)


def test_an_incomplete_run_goes_nowhere(sar_eval_here, tmp_path: Path, failing: str) -> None:
    spec = make_spec(judge_version="1")
    run = make_run(
        tmp_path / "run",
        make_prompts(1),
        spec,
        scenes(),
        error_of=lambda key: "lost" if key.startswith("counting") else None,
    )
    summarize(run.spec, run.folder)
    code, shown = sar_eval_here("track", run.folder.path, "--to", failing)
    assert (code, "no score yet: nothing is logged" in shown) == (3, True)
    code, shown = sar_eval_here("summarize", run.folder.path, "--eval-results", tmp_path / "repository")
    assert (code, "no score yet" in shown) == (3, True)
    code, shown = sar_eval_here("summarize", run.folder.path, "--partial", "--eval-results", tmp_path / "r")
    assert (code, "the run is incomplete" in shown) == (3, True)
    assert not (tmp_path / "repository").exists()
    assert not (tmp_path / "r").exists()


def test_a_failing_tracker_hides_no_score_and_stops_no_other(
    sar_eval, finished: Path, tmp_path: Path, failing: str
) -> None:
    words = (
        "--track",
        failing,
        "--track",
        f"{EXAMPLE}:TRACKER",
        "--tracker-option",
        "file=lines",
        "--json",
    )
    done = sar_eval("judge", finished, *words, cwd=tmp_path, env=here())
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["complete"] is True
    assert "failed: OSError: no route; the run and its score are stored" in done.stderr
    assert "Traceback" not in done.stderr
    [line] = (tmp_path / "lines").read_text().splitlines()
    seen, metrics = json.loads(line), json.loads(done.stdout)["metrics"]
    assert (seen["name"], seen["step"]) == ("run", 400)
    assert seen["figures"]["shapes/overall"] == metrics[0]["value"]
    assert seen["wrong"]  # the scenes of other prompts


def test_what_cannot_work_is_said_before_anything_is_drawn(sar_eval_here, tmp_path: Path) -> None:
    run = ("run", "shapes", "--ckpt", "demo:sft", "--out", tmp_path / "run")
    code, shown = sar_eval_here(*run, "--track", "tensorbord")
    assert (code, "did you mean 'tensorboard'" in shown) == (2, True)
    code, shown = sar_eval_here(*run, "--track", "tensorboard", "--tracker-option", "folders=x")
    assert (code, "tensorboard has folder" in shown) == (2, True)
    code, shown = sar_eval_here(*run, "--eval-results", tmp_path, "--eval-dataset", "a/b/c")
    assert (code, "--eval-dataset is 'a/b/c'" in shown) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_drawn_scored_and_shown_in_one_command(sar_eval, suite: Path, tmp_path: Path) -> None:
    words = ("run", "shapes", "--ckpt", "demo:sft", "--suite", suite, "-n", 1, "--out", tmp_path / "run")
    logs, repository = tmp_path / "logs", tmp_path / "repository"
    words += ("--track", "tensorboard", "--tracker-option", f"folder={logs}", "--step", 30, "--name", "sft")
    done = sar_eval(*words, "--json", "--eval-results", repository)
    assert done.returncode == 0, done.stderr
    overall = json.loads(done.stdout)["metrics"][0]
    figures = scalars(logs / "sar-eval" / "sft")
    assert figures["shapes/overall"] == (30, pytest.approx(overall["value"]))
    assert figures["shapes/overall_low"] == (30, pytest.approx(overall["low"]))
    assert (logs / "sar-eval" / "sft" / "shapes-step-30" / "report.html").is_file()
    assert (repository / ".eval_results" / "shapes.yaml").is_file()


@pytest.mark.slow
def test_a_finished_run_is_shown_later_by_the_step_in_its_name(
    sar_eval, finished: Path, tmp_path: Path
) -> None:
    words = ("track", finished, "--to", "tensorboard", "--images", 4)
    done = sar_eval(*words, cwd=tmp_path, env=here())
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "tensorboard" / "sar-eval" / "run"
    assert {step for step, _ in scalars(folder).values()} == {400}
    assert len(list(folder.glob(EVENTS))) == 1


@pytest.mark.slow  # torch
def test_a_training_is_followed_by_trackers_that_can(sar_eval_here, tmp_path: Path) -> None:
    run = ("train", "grpo", "shapes", "--ckpt", "demo:pretrain", "--out", tmp_path / "grpo")
    code, shown = sar_eval_here(*run, "--track", "tensorbord")
    assert (code, "did you mean 'tensorboard'" in shown) == (2, True)
    code, shown = sar_eval_here(*run, "--track", f"{EXAMPLE}:TRACKER")
    assert (code, "cannot follow a training" in " ".join(shown.split())) == (2, True)
    assert not (tmp_path / "grpo").exists()
