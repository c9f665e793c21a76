"""The suite dpg-shapes: its grammar, its question graphs, and answers from pixels."""

import hashlib
import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from sar_eval import discover
from sar_eval.answerers.shapes import ShapesAnswerer
from sar_eval.errors import BadInput
from sar_eval.recipe import load_recipe
from sar_eval.suites.dpg.questions import read_questions
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.shapes import questions
from sar_eval.suites.shapes.questions import (
    TASKS,
    ShapeQuestion,
    all_questions,
    make_graph,
    make_suite,
    parse_question,
    write_question,
)
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import (
    CANVAS,
    Scene,
    Shape,
    Style,
    arrange_scene,
    name_colors,
    sample_checks,
)
from sar_eval.suites.shapes.vocabulary import BACKGROUND, PALETTE, all_words

ROOT = Path(__file__).parents[3]
QUESTIONS = list(all_questions())
TEXTS = [write_question(question) for question in QUESTIONS]


def scenes(style: Style, number: int, seed: int = 7) -> list[tuple[str, Scene]]:
    """Scenes of the suite's tasks, held-out combinations too."""
    rng, sampled = random.Random(seed), []
    while len(sampled) < number:
        task = tuple(TASKS)[len(sampled) % len(TASKS)]
        checks = sample_checks(TASKS[task], rng)
        checks = name_colors(checks, rng) if task in questions.COLORED_TASKS else checks
        scene = arrange_scene(checks, rng, style=style, train=False)
        sampled += [(task, scene)] if scene else []
    return sampled


def truth(question: ShapeQuestion, scene: Scene) -> bool | None:
    """The answer from the scene itself; None for a relation that is too diagonal (27 to 63 degrees)."""
    own = [shape for shape in scene.shapes if shape.name == question.name]
    if question.kind == "count":
        return len(own) == question.number
    if question.kind == "color":
        return bool(own) and all(shape.color == question.color for shape in own)
    if question.kind == "entity":
        return bool(own)
    others = [shape for shape in scene.shapes if shape.name == question.other]
    relations = {_relation(one, other) for one in own for other in others} or {""}
    return None if None in relations else relations == {question.relation}


def _relation(one: Shape, other: Shape) -> str | None:
    dx = one.x + one.size / 2 - other.x - other.size / 2
    dy = one.y + one.size / 2 - other.y - other.size / 2
    if abs(dy) <= abs(dx) / 2:
        return "left of" if dx < 0 else "right of"
    if abs(dx) <= abs(dy) / 2:
        return "above" if dy < 0 else "below"
    return None


def ask(pixels: np.ndarray, texts: list[str]) -> list:
    with ShapesAnswerer() as answerer:
        return list(next(iter(answerer.answer([(pixels, texts)]))))


def test_every_question_is_parsed_from_its_text() -> None:
    assert len(set(TEXTS)) == len(TEXTS) == 16 + 160 + 32 + 224
    assert [parse_question(text) for text in TEXTS] == QUESTIONS
    assert parse_question("  is the CIRCLE red? ") == ShapeQuestion("color", "circle", 1, "red")


@pytest.mark.parametrize(
    "text", ["", "Is there a dog?", "Is the circle red", "Is the circle left of the circle?", "Why?"]
)
def test_any_other_question_is_an_error_and_no_answer(text: str) -> None:
    pixels = np.full((64, 64, 3), BACKGROUND, np.uint8)
    known, unknown = ask(pixels, ["Is there a circle?", text])
    assert (known.text, known.yes, known.error) == ("no", False, None)
    assert (unknown.text, unknown.yes, unknown.soft) == ("", None, None)
    assert unknown.error == f"the answerer shapes knows no such question: {text!r}"


@pytest.mark.parametrize(("style", "min_accuracy"), [("clean", 1.0), ("tidy", 1.0), ("grainy", 0.9995)])
def test_answers_agree_with_the_scene(style: Style, min_accuracy: float) -> None:
    """All 432 questions about each of 150 scenes, most of them to be answered no."""
    noise, correct, total, positive = np.random.default_rng(3), 0, 0, 0
    for _, scene in scenes(style, 150):
        answers = ask(render(scene, noise if style == "grainy" else None), TEXTS)
        for question, answer in zip(QUESTIONS, answers, strict=True):
            expected = truth(question, scene)
            if expected is not None:
                total, positive = total + 1, positive + expected
                correct += answer.yes is expected and answer.text == ("yes" if expected else "no")
    assert total > 60_000
    assert positive > 500
    assert correct / total >= min_accuracy


def test_all_answers_are_yes_on_a_prompts_scene_and_no_on_a_disjoint_one() -> None:
    other_scenes = [scene for _, scene in scenes("clean", 100, 11)]
    for task, scene in scenes("clean", 150):
        texts = [question.text for question in make_graph(task, scene.checks)]
        assert all(answer.yes for answer in ask(render(scene), texts)), texts
        names = {shape.name for shape in scene.shapes}
        disjoint = next(s for s in other_scenes if not names & {x.name for x in s.shapes})
        assert not any(answer.yes for answer in ask(render(disjoint), texts)), texts


def two_circles() -> Scene:
    """One circle too many, yet all of them red and left of the square."""
    circles = [Shape("circle", "red", 4, y, 20, PALETTE["red"]) for y in (8, 36)]
    return Scene((*circles, Shape("square", "blue", 40, 22, 20, PALETTE["blue"])), BACKGROUND, "", {})


def test_with_children_first_row_by_row_zeroing_does_not_reach_grandchildren() -> None:
    target, circle = {"class": "square", "count": 1, "color": "blue"}, {"class": "circle", "count": 1}
    include = [target, {**circle, "color": "red", "position": ["left of", 0]}]
    graph = make_graph("composition", {"include": include})
    answers = ask(render(two_circles()), [question.text for question in graph])
    yes = {question.id: answer.yes for question, answer in zip(graph, answers, strict=True)}
    assert [number for number, is_yes in yes.items() if not is_yes] == [3]
    assert (_zeroed(graph, yes), _zeroed(graph[::-1], yes)) == ([3, 5, 7], [3, 5])


def _zeroed(rows, yes: dict[int, bool]) -> list[int]:
    """Ids that are no after one in-place pass over the rows that sets children of a no to no."""
    counts = dict(yes)
    for question in rows:
        counts[question.id] = counts[question.id] and all(counts[parent] for parent in question.parents)
    return [number for number, is_yes in counts.items() if not is_yes]


def test_an_images_answers_do_not_depend_on_its_batch() -> None:
    images = [(render(scene), TEXTS[::7]) for _, scene in scenes("clean", 4)]
    with ShapesAnswerer() as answerer:
        together = list(answerer.answer(images))
        assert together == [list(next(iter(answerer.answer([image])))) for image in images]
        assert all(answer.soft is None for answers in together for answer in answers)


def test_the_answerer_loads_by_name_and_limits_opencv_to_one_thread() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        with discover.load("answerers", "shapes")(device="cpu") as answerer:
            assert (cv2.getNumThreads(), answerer.version) == (1, "1")
    finally:
        cv2.setNumThreads(before)


def test_the_shipped_suite_equals_a_sampled_one(sar_eval, tmp_path: Path) -> None:
    done = sar_eval("prompts", "make", "dpg-shapes", "--seed", 43, "--out", tmp_path / "again.jsonl")
    assert done.stdout.startswith("90 prompts"), done.stderr
    data = (ROOT / "prompts" / "dpg-shapes.jsonl").read_bytes()
    assert (tmp_path / "again.jsonl").read_bytes() == data
    sums = (ROOT / "prompts" / "SHA256SUMS").read_text()
    assert f"{hashlib.sha256(data).hexdigest()}  dpg-shapes.jsonl" in sums


def test_the_suites_words_and_questions_are_known_to_the_demo_and_the_answerer() -> None:
    suite = load_suite(ROOT / "prompts" / "dpg-shapes.jsonl")
    assert Counter(prompt.tag for prompt in suite.prompts) == dict.fromkeys(TASKS, 18)
    assert {word for prompt in suite.prompts for word in prompt.text.split()} <= set(all_words())
    kinds = Counter()
    for prompt in suite.prompts:
        graph = read_questions(prompt.checks)
        assert all(parse_question(question.text) for question in graph)
        ids = {question.id for question in graph}
        assert len(ids) == len(graph)
        assert all(set(question.parents) <= ids - {question.id} for question in graph)
        kinds.update((question.category, question.detail) for question in graph)
    assert set(kinds) == {
        ("entity", "whole"),
        ("other", "count"),
        ("attribute", "color"),
        ("relation", "spatial"),
    }


def test_compositions_have_four_levels_and_half_of_them_list_children_first() -> None:
    rows = [row for row in make_suite() if row["tag"] == "composition"]
    children_first = 0
    for row in rows:
        graph = read_questions(row["checks"])
        parents = {question.id: question.parents for question in graph}
        depth: dict[int, int] = {}
        for number in sorted(parents):
            depth[number] = 1 + max((depth[parent] for parent in parents[number]), default=0)
        assert max(depth.values()) == 4
        assert any(len(of) == 2 for of in parents.values())
        row_of = {question.id: i for i, question in enumerate(graph)}
        children_first += any(
            row_of[child] < row_of[parent] for child, of in parents.items() for parent in of
        )
    assert children_first == len(rows) / 2


def test_other_seeds_make_other_suites_and_small_tasks_run_out(monkeypatch) -> None:
    assert len(make_suite(1, 3)) == 15
    assert make_suite(1, 3) != make_suite(2, 3)
    assert len({row["text"] for row in make_suite(5, 40)}) == 200
    monkeypatch.setattr(questions, "TASKS", {"color": "colors"})
    monkeypatch.setattr(questions, "MAX_REPEATS", 4000)
    with pytest.raises(BadInput, match=r"^only 640 distinct prompts of color: ask for fewer"):
        make_suite(per_task=641)


def test_the_recipe_names_the_suite_and_the_answerer() -> None:
    recipe = load_recipe("dpg-shapes")
    assert recipe.suite.name == "dpg-shapes.jsonl"
    assert (recipe.settings["judge"], recipe.settings["fold"]) == ("vqa", "dpg")
    assert recipe.judge_options == {"answerer": "shapes"}
    assert dict(recipe.protocol) == dict(load_recipe("shapes").protocol)
    assert recipe.protocol["resolution"] == CANVAS
