"""Histories: which runs stand in which series, in which order, and why the others do not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, Incomplete
from sar_eval.histories import History, LeftOut, sentence
from sar_eval.spec import RunSpec
from sar_eval.stages.compare import Allowed, compare
from sar_eval.stages.history import make_history
from sar_eval.stages.measure import score_run
from sar_eval.stages.save_baseline import save_baseline
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import DrawProtocol
from tests.history_folders import make_suite, write_run, write_training

pytestmark = pytest.mark.slow

PROMPTS = make_suite(4)


def _names(history: History) -> list[list[str]]:
    return [[Path(entry.path).name for entry in series.entries] for series in history.series]


def _why(history: History) -> dict[str, str]:
    return {Path(run.path).name: run.why for run in history.left_out}


def _scored(path: Path):
    folder = RunFolder(path)
    return score_run(RunSpec.from_json(folder.read_manifest().spec), folder)


def test_checkpoints_stand_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (9000, 10_000, 500):
        write_run(
            tmp_path / "a" / f"r{step}",
            PROMPTS,
            0.5,
            checkpoint=f"/x/step-{step}",
            checkpoint_digest=str(step),
        )
    history = make_history(tmp_path)
    assert _names(history) == [["r500", "r9000", "r10000"]]
    (series,) = history.series
    assert [entry.step for entry in series.entries] == [500, 9000, 10_000]
    assert series.title == "shapes"
    assert series.curves[0].measure == "overall"
    assert [curve.measure for curve in series.curves][1:4] == [
        "task/counting",
        "task/colors",
        "task/position",
    ]


def test_the_change_to_the_checkpoint_before_is_what_compare_says(tmp_path: Path) -> None:
    write_training(tmp_path, [0.4, 0.6], per_task=8)
    scored = [_scored(tmp_path / name) for name in ("sft-1", "sft-2")]
    difference = compare(scored, [], Allowed()).pairs[0].overall
    curve = make_history(tmp_path).series[0].curves[0]
    assert curve.changes[0] is None
    change = curve.changes[1]
    assert change is not None
    assert (change.value, change.low, change.high) == pytest.approx(
        (difference.value, difference.low, difference.high)
    )
    assert curve.figures[1].value == pytest.approx(difference.second)


def test_a_step_is_marked_and_said_in_words(tmp_path: Path) -> None:
    write_training(tmp_path, [0.4] * 3 + [0.7] * 3, per_task=15)
    (series,) = make_history(tmp_path).series
    ((entry, change),) = series.marked(series.curves[0])
    assert entry.step == 4000
    assert change.low > 0.15
    assert sentence(series, series.curves[0], change).startswith("from 4000 on: overall +0.")
    assert "p < 0.001 (3 checkpoints on either side)" in sentence(series, series.curves[0], change)
    assert [(a, b) for a, b, _ in series.curves[0].means] == [(0, 3), (3, 6)]


def test_runs_of_one_checkpoint_are_both_there_and_count_as_one(tmp_path: Path) -> None:
    write_training(tmp_path, [0.5, 0.5], per_task=4)
    again = {"checkpoint": "/out/sft/step-1000", "checkpoint_digest": "sft1", "seed": 1}
    write_run(tmp_path / "again", PROMPTS, 0.5, **again)
    (series,) = make_history(tmp_path).series
    assert [(Path(e.path).name, e.seed, e.level) for e in series.entries] == [
        ("sft-1", 0, 0),
        ("again", 1, 0),
        ("sft-2", 0, 1),
    ]
    curve = series.curves[0]
    assert [change is None for change in curve.changes] == [True, True, False]
    values = [figure.value or 0 for figure in curve.figures]
    assert curve.changes[2] is not None
    assert curve.changes[2].value == pytest.approx(values[2] - (values[0] + values[1]) / 2)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"protocol": DrawProtocol("shapes", 64, guidance=3.0)}, ("guidance 1.0", "guidance 3.0")),
        ({"judge_options": {"threshold": 0.5}}, ("judge's threshold none", "judge's threshold 0.5")),
        ({"judge_version": "2"}, ("judge version none", "judge version 2")),
        ({"images_per_prompt": 2}, ("images per prompt 4", "images per prompt 2")),
        ({"name": "rl"}, ("sft/step-*", "rl/step-*")),
    ],
    ids=lambda value: "" if isinstance(value, tuple) else next(iter(value)),
)
def test_unlike_runs_are_series_of_their_own_named_by_what_differs(
    tmp_path: Path, changes: dict[str, object], differs: tuple[str, str]
) -> None:
    write_training(tmp_path / "a", [0.5, 0.5], per_task=3)
    write_training(tmp_path / "b", [0.5], per_task=3, **changes)
    history = make_history(tmp_path)
    assert {series.differs for series in history.series} == set(differs)
    assert sorted(len(series.entries) for series in history.series) == [1, 2]


def test_a_protocols_name_alone_is_no_difference(tmp_path: Path) -> None:
    write_training(tmp_path / "a", [0.5], per_task=3)
    other = {
        "checkpoint": "/out/sft/step-2000",
        "checkpoint_digest": "2",
        "protocol": DrawProtocol("mine", 64),
    }
    write_run(tmp_path / "b", make_suite(3), 0.5, **other)
    assert [len(series.entries) for series in make_history(tmp_path).series] == [2]


def test_benchmarks_and_suites_are_apart_and_one_can_be_chosen(tmp_path: Path) -> None:
    write_training(tmp_path / "a", [0.5], per_task=3)
    write_training(tmp_path / "b", [0.5], per_task=4)
    write_training(tmp_path / "c", [0.5], per_task=4, benchmark="other")
    history = make_history(tmp_path)
    assert [series.benchmark for series in history.series] == ["other", "shapes", "shapes"]
    assert all(series.differs.startswith("suite ") for series in history.series[1:])
    assert [series.benchmark for series in make_history(tmp_path, benchmark="other").series] == ["other"]


def test_a_baseline_stands_for_its_run_and_not_beside_it(tmp_path: Path) -> None:
    write_training(tmp_path / "runs", [0.5, 0.6], per_task=4)
    for number in (1, 2):
        save_baseline(_scored(tmp_path / "runs" / f"sft-{number}"), tmp_path / f"b{number}.parquet")
    before = make_history(tmp_path)
    assert _names(before) == [["sft-1", "sft-2"]]
    assert _why(before)["b1.parquet"].startswith("the same run as ")
    shutil.rmtree(tmp_path / "runs" / "sft-1")
    after = make_history(tmp_path)
    assert _names(after) == [["b1.parquet", "sft-2"]]
    assert after.series[0].curves == before.series[0].curves


def test_runs_of_no_use_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_training(tmp_path, [0.5, 0.5, 0.5, 0.5, 0.5], per_task=3)
    shutil.rmtree(tmp_path / "sft-2" / "verdicts")
    shutil.rmtree(tmp_path / "sft-3")
    holes = {"checkpoint": "/out/sft/step-3000", "checkpoint_digest": "sft3", "batch_size": 5}
    write_run(tmp_path / "sft-3", make_suite(3), 0.5, **holes)
    next((tmp_path / "sft-3" / "generations").glob("part-*")).unlink()
    manifest = tmp_path / "sft-4" / "run.json"
    manifest.write_text(manifest.read_text().replace("step-4000", "step-4444"))
    (tmp_path / "sft-5" / "run.json").write_text("{")
    write_run(tmp_path / "code", make_suite(3), 0.5, checkpoint="/out/sft/step-7", fold="mine.py:FOLD")
    write_run(tmp_path / "no-step", make_suite(3), 0.5, checkpoint="/out/base", checkpoint_digest="base")
    shutil.copytree(tmp_path / "sft-1", tmp_path / "copy")
    (tmp_path / "prompts.parquet").write_bytes(b"no baseline")
    history = make_history(tmp_path)
    why = _why(history)
    assert _names(history) == [["copy"]]
    assert why["sft-2"].startswith("has no score yet")
    assert why["sft-3"] == "incomplete: 5 of 36 images have no result"
    assert "was changed after sar-eval wrote it" in why["sft-4"]
    assert "broken JSON" in why["sft-5"]
    assert "names the fold 'mine.py:FOLD', which is code" in why["code"]
    assert "no training step in the name '/out/base'" in why["no-step"]
    assert why["sft-1"].startswith("the same run as ")
    assert len(why) == 7


@pytest.mark.parametrize(("order", "names"), [("name", ["b9", "b10", "a"]), ("time", ["a", "b10", "b9"])])
def test_order_by_name_and_by_time(tmp_path: Path, order: str, names: list[str]) -> None:
    for day, (name, checkpoint) in enumerate([("a", "/x/z"), ("b10", "/x/run10"), ("b9", "/x/run9")]):
        write_run(tmp_path / name, PROMPTS, 0.5, day=day, checkpoint=checkpoint, checkpoint_digest=name)
    history = make_history(tmp_path, order=order)
    assert _names(history) == [names]
    assert history.series[0].order == order


def test_without_any_step_time_orders_and_a_note_says_so(tmp_path: Path) -> None:
    for day, name in enumerate(["sft", "pretrain"]):
        write_run(tmp_path / name, PROMPTS, 0.5, day=day, checkpoint=f"demo:{name}", checkpoint_digest=name)
    history = make_history(tmp_path)
    assert _names(history) == [["sft", "pretrain"]]
    assert any("in order of time" in note for note in history.notes)


def test_a_run_folders_name_may_have_the_step(tmp_path: Path) -> None:
    for step in (10, 9):
        write_run(
            tmp_path / f"step-{step}", PROMPTS, 0.5, checkpoint="/out/latest", checkpoint_digest=str(step)
        )
    assert _names(make_history(tmp_path)) == [["step-9", "step-10"]]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("order.txt", "base\nsft\nrl\nabsent\n"),
        ("order.csv", "name,step\nbase,0\nrl,300\nsft,200\nabsent,1\n"),
        ("order.jsonl", '{"checkpoint": "/x/base"}\n{"name": "sft"}\n{"name": "rl"}\n{"name": "absent"}\n'),
    ],
)
def test_a_file_says_the_order_and_joins_other_trainings(tmp_path: Path, file: str, text: str) -> None:
    for name in ("rl", "sft", "base", "stranger"):
        write_run(
            tmp_path / "runs" / f"of-{name}", PROMPTS, 0.5, checkpoint=f"/x/{name}", checkpoint_digest=name
        )
    (tmp_path / file).write_text(text)
    history = make_history(tmp_path / "runs", order=str(tmp_path / file))
    assert _names(history) == [["of-base", "of-sft", "of-rl"]]
    steps = [entry.step for entry in history.series[0].entries]
    assert steps == ([0, 200, 300] if file.endswith(".csv") else [None] * 3)
    assert _why(history) == {"of-stranger": f"not in {tmp_path / file}"}
    assert any("no finished run of 'absent'" in note for note in history.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,step\na,1\na,2\n", ":3: 'a' is there twice"),
        ("name,step\na,x\n", "step is 'x': a whole number"),
        ("name,step\na,1\nb,\n", "some names have a step and some have none"),
        ("title,step\na,1\n", "no name"),
        ("name\n", "lists no names"),
    ],
)
def test_a_file_of_no_use_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write_run(tmp_path / "run", PROMPTS, 0.5)
    (tmp_path / "order.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        make_history(tmp_path, order=str(tmp_path / "order.csv"))


def test_no_runs_no_folder_no_order_no_measure(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no folder"):
        make_history(tmp_path / "absent")
    with pytest.raises(BadInput, match="no runs below"):
        make_history(tmp_path)
    write_training(tmp_path, [0.5], per_task=3)
    with pytest.raises(BadInput, match="no runs of 'dpg' below"):
        make_history(tmp_path, benchmark="dpg")
    with pytest.raises(BadInput, match="--order is 'sideways': step, name, time, or a file"):
        make_history(tmp_path, order="sideways")
    with pytest.raises(BadInput, match="--measure is 'al': the runs have overall, task/counting"):
        make_history(tmp_path, measure="al")
    shutil.rmtree(tmp_path / "sft-1" / "verdicts")
    with pytest.raises(Incomplete, match=r"no finished run below .*has no score yet"):
        make_history(tmp_path)


def test_folders_are_searched_some_levels_deep(tmp_path: Path) -> None:
    deep = tmp_path / "1" / "2" / "3"
    write_run(deep / "4", PROMPTS, 0.5, checkpoint="/x/step-1", checkpoint_digest="1")
    write_run(deep / "too" / "deep", PROMPTS, 0.5, checkpoint="/x/step-2", checkpoint_digest="2")
    write_run(tmp_path / ".hidden", PROMPTS, 0.5, checkpoint="/x/step-3", checkpoint_digest="3")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert _names(make_history(tmp_path)) == [["4"]]


def test_runs_that_another_program_wrote_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "ours", PROMPTS, 0.5, checkpoint="/x/step-1")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "run.json").write_text(json.dumps({"id": 1}))
    (left,) = make_history(tmp_path).left_out
    assert replace(left, why="") == LeftOut(path=str(tmp_path / "theirs"), benchmark="", why="")
    assert "spec" in left.why
