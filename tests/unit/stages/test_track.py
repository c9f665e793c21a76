"""What of a run goes to a tracker, and what happens if that fails."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from sar_eval.errors import BadInput, Incomplete, MissingExtra, TrackerFailed, UnknownName
from sar_eval.images.files import decode_image, encode_png
from sar_eval.stages.summarize import summarize
from sar_eval.stages.track import HowToShow, describe, make_trackers, track
from sar_eval.types import Metric, Prompt
from tests.e2e.report_runs import make_large_run, make_spec
from tests.stored_runs import begin_run, store_generations, store_verdicts

KEY = "0123456789abcdef0123456789abcdef01234567"
TASKS = ("counting", "colors", "position")
PROMPTS = [Prompt(f"{task}-{n}", f"{n} of {task}", task) for task in TASKS for n in range(20)]
KEYS = [f"{prompt.id}/{index}" for prompt in PROMPTS for index in range(2)]


def picture(number: int) -> bytes:
    return encode_png(np.full((4, 4, 3), number, np.uint8))


def finished(path, scores, **changes):
    """A scored run of these prompts: spec, folder, summary."""
    spec, folder = begin_run(path, PROMPTS, images_per_prompt=2, batch_size=16, **changes)
    store_generations(spec, folder, {key: picture(n) for n, key in enumerate(KEYS)})
    store_verdicts(spec, folder, scores)
    return spec, folder, summarize(spec, folder)


@pytest.fixture
def run(tmp_path):
    """Counting fails now and then, colours always, position never."""
    fails = {"counting": lambda n: n % 7 == 0, "colors": lambda n: True, "position": lambda n: False}
    scores = {key: float(not fails[key.split("-")[0]](n)) for n, key in enumerate(KEYS)}
    return finished(tmp_path / "run-1", scores, checkpoint="org/model@checkpoint-2000")


class Recorder:
    """A tracker that keeps what it gets."""

    def __init__(self, *, folder: str = "", depth: int = 1) -> None:
        self.folder, self.depth, self.runs = folder, depth, []

    def log(self, run):
        self.runs.append(run)
        return "here"


def test_every_figure_has_its_interval_and_count(run) -> None:
    figures = describe(*run, HowToShow()).figures
    metrics = [metric for metric in run[2].metrics if metric.value is not None]
    for metric in metrics:
        name = f"shapes/{metric.name}"
        found = [figures[name + end] for end in ("", "_low", "_high", "_n")]
        assert found == [metric.value, metric.low, metric.high, metric.n]
    assert len(figures) == 4 * len(metrics) > 4


def test_names_of_figures_are_those_that_every_tracker_takes(run) -> None:
    spec, folder, summary = run
    odd = [Metric(name, 1.0, None, None, 3) for name in ("task/<b>ü", "../x", "a//b")]
    figures = describe(spec, folder, replace(summary, metrics=tuple(odd)), HowToShow()).figures
    assert [name for name in figures if not name.endswith("_n")] == [
        "shapes/task/_b__",
        "shapes/_/x",
        "shapes/a/_/b",
    ]
    same = replace(summary, metrics=(Metric("a<", 1.0, None, None, 3), Metric("a>", 0.5, None, None, 3)))
    with pytest.raises(BadInput, match="two metrics would be logged as 'shapes/a_'"):
        describe(spec, folder, same, HowToShow())


def test_pictures_are_right_and_wrong_ones_of_every_task(run) -> None:
    pictures = list(describe(*run, HowToShow(pictures=8)).pictures)
    assert len(pictures) == 8
    assert [p.key for p in pictures] == sorted((p.key for p in pictures), key=KEYS.index)
    found = {(p.task, p.score) for p in pictures}
    assert found == {("counting", 0.0), ("counting", 1.0), ("colors", 0.0), ("position", 1.0)}
    for shown in pictures:
        assert shown.prompt == f"{shown.key.split('-')[1].split('/')[0]} of {shown.task}"
        assert decode_image(shown.image)[0, 0, 0] == KEYS.index(shown.key)


def test_scores_without_pass_and_fail_are_shown_from_both_halves(tmp_path) -> None:
    run = finished(tmp_path / "run", {key: n % 40 / 40 for n, key in enumerate(KEYS)})
    scores = [p.score for p in describe(*run, HowToShow(pictures=12)).pictures]
    assert sum(score < 0.4875 for score in scores) == 6
    assert len(set(scores)) > 6
    assert list(describe(*run, HowToShow(pictures=0)).pictures) == []
    assert len(list(describe(*run, HowToShow(pictures=1000)).pictures)) == len(KEYS)


def test_a_judge_that_only_passes_and_fails_has_right_and_wrong_pictures_too(tmp_path) -> None:
    spec = make_spec(images_per_prompt=2, batch_size=8)
    run = make_large_run(tmp_path / "run", PROMPTS, spec)  # every fifth failed, and there are no scores
    metrics = (Metric("overall", 0.8, 0.7, 0.9, 120),)
    summary = replace(summarize(run.spec, run.folder), metrics=metrics)
    pictures = list(describe(run.spec, run.folder, summary, HowToShow(pictures=6)).pictures)
    assert {(p.task, p.passed, p.verdict) for p in pictures} == {
        (task, passed, "passed" if passed else "failed") for task in TASKS for passed in (True, False)
    }


def test_pictures_are_read_when_they_are_asked_for(run, monkeypatch) -> None:
    from sar_eval.storage.parts import PartTable

    read, images_at = [], PartTable.images_at

    def count(self, path, positions):
        read.append(len(positions))
        return images_at(self, path, positions)

    monkeypatch.setattr(PartTable, "images_at", count)
    pictures = describe(*run, HowToShow(pictures=6)).pictures
    assert read == []
    next(pictures)
    assert read == [1]


def test_the_step_is_the_one_asked_for_or_the_checkpoints(run) -> None:
    assert describe(*run, HowToShow()).step == 2000
    assert describe(*run, HowToShow(step=7)).step == 7
    shown = describe(*run, HowToShow(project="p", name="n"))
    assert (shown.project, shown.name, shown.place) == ("p", "n", "shapes-step-2000")
    assert describe(*run, HowToShow()).name == "run-1"


def test_the_config_is_the_runs_spec(run) -> None:
    spec = run[0]
    config = describe(*run, HowToShow()).config
    assert config.items() >= spec.to_json().items()
    assert (config["spec_digest"], config["images"], config["partial"]) == (spec.digest, 120, False)


def test_a_report_goes_with_what_lies_beside_it(run) -> None:
    folder = run[1]
    (folder.path / "report_assets").mkdir()
    assert describe(*run, HowToShow()).report == ()
    (folder.path / "report.html").write_text("x")
    names = [path.name for path in describe(*run, HowToShow()).report]
    assert names == ["report.html", "report_assets"]


def test_a_run_without_a_score_is_not_logged(tmp_path) -> None:
    run = finished(tmp_path / "run", dict.fromkeys(KEYS[:-1], 1.0))
    with pytest.raises(Incomplete, match="nothing is logged before the run is complete"):
        track(*run, ("recorder", Recorder()), HowToShow())


def test_a_tracker_that_fails_is_a_message_without_its_key(run, monkeypatch, capsys) -> None:
    class Failing:
        def log(self, run):
            print("noise")
            raise ConnectionError(f"401 for {KEY}\nof https://me:password@host/api")

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(TrackerFailed, match=r"tracker 'x' failed: ConnectionError: 401") as failed:
        track(*run, ("x", Failing()), HowToShow())
    assert KEY not in str(failed.value)
    assert "of https://[key]@host/api" in str(failed.value)
    assert f"sar-eval track {run[1].path} --to x" in str(failed.value)
    assert failed.value.exit_code == 3
    assert capsys.readouterr().out == ""  # standard output is for the summary


def test_a_tracker_that_asks_gets_no_answer(run, monkeypatch) -> None:
    class Asking:
        def log(self, run):
            assert not sys.stdin.isatty()
            return input("Enter your choice: ")

    before = sys.stdin
    with pytest.raises(TrackerFailed, match="EOFError"):
        track(*run, ("x", Asking()), HowToShow())
    assert sys.stdin is before


def test_options_go_to_the_trackers_that_have_them(monkeypatch) -> None:
    from sar_eval import discover

    class Other:
        def __init__(self, *, folder: str = "") -> None:
            self.folder = folder

    classes = {"one": Recorder, "two": Other}
    monkeypatch.setattr(discover, "load", lambda kind, name: classes[name])
    made = make_trackers(["one", "two"], {"folder": "f", "depth": 2})
    assert (made["one"].folder, made["one"].depth, made["two"].folder) == ("f", 2, "f")
    with pytest.raises(BadInput, match=r"--tracker-option nope: one has folder, depth; two has folder"):
        make_trackers(["one", "two"], {"nope": 1})
    with pytest.raises(BadInput, match=r"depth .* of tracker 'one' must be of kind int"):
        make_trackers(["one"], {"depth": "x"})
    with pytest.raises(BadInput, match="no tracker is named"):
        make_trackers([], {"depth": 1})


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow", "tensorboard"])
def test_a_missing_package_is_named_with_its_extra(name: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"tracker '{name}' needs: pip install 'sar-eval\[{name}\]'"):
        make_trackers([name], {})


def test_a_folder_of_the_packages_name_is_not_the_package(tmp_path, monkeypatch) -> None:
    from sar_eval.discover import need

    (tmp_path / "nowhere_installed").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match="a folder of the name nowhere_installed"):
        need("nowhere_installed", extra="wandb", what="tracker 'wandb'")


def test_an_unknown_tracker_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'tensorboard'"):
        make_trackers(["tensorbord"], {})
