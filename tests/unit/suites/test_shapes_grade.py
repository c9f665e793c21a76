"""The graded judge of the demo world: every step towards what was asked is worth something."""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest

from sar_eval import discover
from sar_eval.images.files import encode_png
from sar_eval.judges.shapes import ShapesJudge
from sar_eval.judges.shapes_soft import ShapesSoftJudge
from sar_eval.spec import RunSpec
from sar_eval.stages.resolve import with_judge
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import Scene, Shape, arrange_scene, sample_checks
from sar_eval.suites.shapes.vocabulary import BACKGROUND, COLORS, PALETTE, SHAPES, TASKS
from sar_eval.types import Generation, Prompt, Verdict

TWO_CIRCLES = {
    "tag": "counting",
    "include": [{"class": "circle", "count": 2}],
    "exclude": [{"class": "circle", "count": 3}],
}
RED_STAR = {"tag": "colors", "include": [{"class": "star", "count": 1, "color": "red"}]}
LEFT = {
    "tag": "position",
    "include": [{"class": "ring", "count": 1}, {"class": "heart", "count": 1, "position": ["left of", 0]}],
}
SLOTS = ((4, 4), (40, 4), (4, 40), (40, 40))  # corners, of 20 pixels each


def _pixels(*shapes: str) -> np.ndarray:
    """`red star` and so on in the four corners, in this order; "" leaves one empty."""
    placed = [(text.split(), slot) for text, slot in zip(shapes, SLOTS, strict=False) if text]
    drawn = tuple(Shape(name, color, x, y, 20, PALETTE[color]) for (color, name), (x, y) in placed)
    return render(Scene(drawn, BACKGROUND, "", {}))


def _judge(checks: Mapping[str, Any] | None, *pictures: np.ndarray) -> list[Verdict]:
    items = [
        (Prompt("p", "", checks=checks), Generation(f"p/{n}", n, image=encode_png(pixels)))
        for n, pixels in enumerate(pictures)
    ]
    with ShapesSoftJudge() as judge:
        return list(judge.judge(items))


def _score(checks: Mapping[str, Any], pixels: np.ndarray) -> float:
    (verdict,) = _judge(checks, pixels)
    assert (verdict.error, verdict.passed) == (None, None)
    assert verdict.score is not None
    assert 0 <= verdict.score <= 1
    return verdict.score


def _falls(*scores: float) -> bool:
    return all(better > worse for better, worse in pairwise(scores))


def test_a_right_picture_is_worth_about_1_and_an_empty_one_0() -> None:
    rng, drawn = random.Random(3), []
    for number in range(240):
        checks = sample_checks(TASKS[number % 6], rng)
        if scene := arrange_scene(checks, rng, style="clean", train=False):
            drawn.append(_score(checks, render(scene)))
            assert _score(checks, np.full((64, 64, 3), BACKGROUND, np.uint8)) == 0
    assert len(drawn) > 200
    assert min(drawn) > 0.8  # the outline of a small star is not sharp
    assert np.mean(drawn) > 0.9


def test_the_nearer_colour_is_worth_more() -> None:
    found = [_score(RED_STAR, _pixels(f"{color} star")) for color in ("red", "orange", "blue")]
    assert _falls(*found, 0)


def test_the_nearer_outline_is_worth_more() -> None:
    found = [_score(RED_STAR, _pixels(f"red {name}")) for name in ("star", "cross", "ring")]
    assert _falls(*found, 0)
    halfway = cv2.addWeighted(_pixels("red star"), 0.5, _pixels("red square"), 0.5, 0)
    assert _falls(found[0], _score(RED_STAR, halfway))


def test_each_of_several_objects_counts() -> None:
    right, one, none, three, four = (
        _score(TWO_CIRCLES, _pixels(*shapes))
        for shapes in (["red circle"] * 2, ["red circle"], [], ["red circle"] * 3, ["red circle"] * 4)
    )
    assert right == pytest.approx(1, abs=0.05)
    assert one == pytest.approx(right / 2)
    assert (three, four) == (pytest.approx(right * 2 / 3), pytest.approx(right / 2))
    assert none == 0


def test_a_relation_counts_by_its_direction() -> None:
    ring, heart = "red ring", "blue heart"
    right = _score(LEFT, _pixels(heart, ring))
    diagonal = _score(LEFT, _pixels(heart, "", "", ring))
    above = _score(LEFT, _pixels(heart, "", ring))
    wrong = _score(LEFT, _pixels(ring, heart))
    assert right == pytest.approx(diagonal, abs=0.02)  # 45 degrees are within GenEval's 60
    assert _falls(right, above, wrong, 0)
    assert wrong == pytest.approx(right / 2, abs=0.02)  # both are there, neither is where it should be
    alone, without = (_score(LEFT, _pixels(one)) for one in (ring, heart))
    assert _falls(right, alone, without, 0)


def test_a_picture_full_of_shapes_does_not_answer_everything() -> None:
    everything = render(
        Scene(
            tuple(
                Shape(name, "red", 2 + n % 4 * 15, 8 + n // 4 * 30, 13, PALETTE["red"])
                for n, name in enumerate(SHAPES)
            ),
            BACKGROUND,
            "",
            {},
        )
    )
    assert _score(RED_STAR, everything) < 0.2


def test_it_ranks_as_the_binary_judge_does() -> None:
    """On random scenes for random prompts: what passes there is worth more here, but for few."""
    rng, passed, failed = random.Random(8), [], []
    for _ in range(150):
        asked, shown = sample_checks("color_attr", rng), sample_checks("color_attr", rng)
        checks = rng.choice((asked, shown))
        if scene := arrange_scene(shown, rng, style="clean", train=False):
            items = [
                (Prompt("p", "", checks=checks), Generation("p/0", 0, image=encode_png(render(scene))))
            ]
            (binary,) = ShapesJudge(threshold=0.6, counting_threshold=0.6).judge(items)
            (passed if binary.passed else failed).append(_score(checks, render(scene)))
    assert min(len(passed), len(failed)) > 40
    assert min(passed) > max(failed)


def test_the_evidence_says_what_was_found() -> None:
    (verdict,) = _judge(LEFT, _pixels("red ring", "blue heart", "green star"))
    ring, heart = verdict.evidence["items"]
    assert verdict.evidence["surplus"] == 1
    first, second = verdict.evidence["boxes"]
    assert [(box["item"], box["name"]) for box in (first, second)] == [(0, "ring"), (1, "heart")]
    assert first["box"] == pytest.approx([4, 4, 24, 24], abs=1)
    assert first["score"] > 0.9
    assert first["color_match"] == 1  # none is asked
    assert (ring["relation"], heart["relation"]) == (1.0, pytest.approx(0, abs=0.01))
    assert heart["value"] == pytest.approx(0, abs=0.01)
    assert verdict.reason == f"ring {ring['value']:.2f}, heart 0.00, 1 too many"


def test_what_cannot_be_graded_is_an_error() -> None:
    unknown = {"include": [{"class": "dog", "count": 1}]}
    broken = {"include": [{"class": "ring"}]}
    for checks, why in (
        (None, "no GenEval checks"),
        (unknown, "knows no class"),
        (broken, "needs a count"),
    ):
        (verdict,) = _judge(checks, _pixels("red ring"))
        assert why in (verdict.error or "")
        assert verdict.score is None
    huge = {"include": [{"class": "ring", "count": 10**9}]}
    assert _score(huge, _pixels("red ring")) < 1e-8
    prompt = Prompt("p", "", checks=RED_STAR)
    failed, unreadable = (
        Generation("p/0", 0, error="out of memory"),
        Generation("p/1", 0, image=b"no image"),
    )
    first, second = ShapesSoftJudge().judge([(prompt, failed), (prompt, unreadable)])
    assert first.error == "no image: out of memory"
    assert "unreadable" in (second.error or "")


@pytest.mark.parametrize("name", ["shapes-soft", "shapes_soft"])
def test_either_spelling_finds_it(name: str) -> None:
    assert discover.load("judges", name) is ShapesSoftJudge
    assert discover.listed("judges", name) == "shapes-soft"
    assert "shapes-soft" in discover.names("judges")
    assert "shapes_soft" not in discover.names("judges")


def test_either_spelling_is_one_judge_of_a_run(spec: RunSpec) -> None:
    specs = [with_judge(replace(spec, judge=n, judge_options={})) for n in ("shapes-soft", "shapes_soft")]
    assert specs[0] == specs[1]
    assert specs[0].judge == "shapes-soft"


@pytest.mark.parametrize("color", COLORS)
def test_every_colour_is_its_own_best(color: str) -> None:
    checks = {"include": [{"class": "ring", "count": 1, "color": color}]}
    scores = {other: _score(checks, _pixels(f"{other} ring")) for other in COLORS}
    assert max(scores, key=scores.__getitem__) == color
    assert sorted(scores.values())[-2] < 0.35
