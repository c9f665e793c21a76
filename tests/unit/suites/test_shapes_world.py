"""The demo world: its images, its suite, its judge."""

import io
import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.judges.shapes import ShapesJudge
from sar_eval.suites.geneval.verdict import Thresholds, decide_verdict
from sar_eval.suites.shapes import suite as shapes
from sar_eval.suites.shapes.detect import detect
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import Style, arrange_scene, sample_checks, sample_scene
from sar_eval.suites.shapes.suite import make_suite
from sar_eval.suites.shapes.vocabulary import COLORS, SHAPES, TASKS, is_held_out
from sar_eval.types import Generation, Prompt

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("style", ["grainy", "noisy", "clean", "tidy"])
def test_the_rendered_shapes_are_detected(style: Style) -> None:
    rng, noise = random.Random(2024), np.random.default_rng(1)
    correct = 0
    for _ in range(500):
        scene = sample_scene(rng, style=style)
        detections = detect(render(scene, noise if style == "grainy" else None))
        expected = sorted((s.name, s.color) for s in scene.shapes)
        actual = sorted((d.name, d.color) for d in detections)
        correct += expected == actual and _boxes_match(scene, detections)
    assert correct >= 495


def _boxes_match(scene, detections) -> bool:
    boxes = [(s.x, s.y, s.x + s.size, s.y + s.size) for s in scene.shapes]
    return all(min(np.abs(np.subtract(box, d.box)).max() for box in boxes) <= 1.5 for d in detections)


def test_a_scene_meets_its_own_checks() -> None:
    rng = random.Random(3)
    for number in range(600):
        checks = sample_checks(TASKS[number % 6], rng)
        scene = arrange_scene(checks, rng, style="clean", train=False)
        if scene is not None:
            ruling = decide_verdict(checks, detect(render(scene)), Thresholds(0.6, 0.6))
            assert ruling.correct, (checks, ruling.reason)


def test_training_scenes_show_nothing_that_is_held_out() -> None:
    rng = random.Random(4)
    combinations = set()
    for number in range(4000):
        scene = sample_scene(rng, style=("grainy", "noisy", "clean", "tidy")[number % 4])
        objects = [(shape.name, shape.color) for shape in scene.shapes]
        assert not is_held_out(objects)
        combinations |= set(objects)
    assert len(combinations) == len(SHAPES) * len(COLORS) - 8


def test_masks_are_coco_run_lengths() -> None:
    scene = sample_scene(random.Random(5), style="clean", tag="counting")
    for detection in detect(render(scene)):
        counts = detection.mask["counts"]
        assert sum(counts) == 64 * 64
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        ys, xs = np.nonzero(flat.reshape(64, 64, order="F"))
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == detection.box


def test_the_shipped_suite_is_the_samplers() -> None:
    rows = [json.loads(line) for line in (ROOT / "prompts" / "shapes.jsonl").read_text().splitlines()]
    assert rows == make_suite()
    for task in TASKS:
        assert sum(row["tag"] == task for row in rows) == 60
    assert len({row["text"] for row in rows}) == 360
    assert sum(row["split"] == "unseen" for row in rows) == 48


def test_other_seeds_and_sizes_make_other_suites() -> None:
    assert len(make_suite(seed=1, per_task=5)) == 30
    assert make_suite(seed=1, per_task=5) != make_suite(seed=2, per_task=5)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_unjudgeable_images_are_errors_not_zeros() -> None:
    prompt = Prompt(
        "a", "a ring", checks={"tag": "single_object", "include": [{"class": "ring", "count": 1}]}
    )
    blank = Generation("a/0", 0, image=_png(np.full((64, 64, 3), 90, np.uint8)))
    red = Generation("a/2", 0, image=_png(np.full((64, 64, 3), (214, 30, 36), np.uint8)))
    broken = Generation("a/1", 0, image=b"no image")
    unchecked = [(Prompt("x", "a ring", checks=checks), blank) for checks in (None, {"questions": []}, [1])]
    with ShapesJudge() as judge:
        verdicts = list(judge.judge([(prompt, blank), (prompt, red), (prompt, broken), *unchecked]))
    assert all(v.score is None and v.passed is None for v in verdicts)
    reasons = [v.error for v in verdicts]
    assert reasons[:2] == ["blank image"] * 2
    assert "unreadable" in reasons[2]
    assert reasons[3:] == ["prompt 'x' has no GenEval checks (include)"] * 3


def test_an_unknown_judge_option_is_refused() -> None:
    with pytest.raises(BadInput, match="no option 'treshold'"):
        ShapesJudge(treshold=0.5)


@pytest.mark.parametrize(
    "option",
    [
        {"threshold": "0.5"},
        {"threshold": True},
        {"counting_threshold": float("nan")},
        {"position_threshold": None},
        {"max_objects": 2.5},
        {"max_objects": True},
        {"max_objects": 0},
    ],
)
def test_an_option_of_the_wrong_kind_is_refused(option) -> None:
    with pytest.raises(BadInput, match=f"option '{next(iter(option))}' of judge 'shapes'"):
        ShapesJudge(**option)


def test_thresholds_may_be_whole_numbers() -> None:
    assert ShapesJudge(max_overlap=1, max_objects=3).thresholds == Thresholds(max_overlap=1, max_objects=3)


def test_the_judge_keeps_opencv_to_one_thread() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        with ShapesJudge():
            assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize(
    ("task", "number", "available"),
    [("single_object", 65, "64 distinct prompts"), ("two_object", 400, "64 distinct unseen prompts")],
)
def test_asking_for_too_many_prompts_is_refused(task, number, available, monkeypatch) -> None:
    monkeypatch.setattr(shapes, "TASKS", (task,))
    with pytest.raises(BadInput, match=f"^only {available} of {task}: ask for fewer with --per-task$"):
        make_suite(per_task=number)


def test_a_suite_can_have_all_prompts_of_a_task() -> None:
    rows = make_suite(per_task=64)
    assert sum(row["tag"] == "single_object" for row in rows) == 64
