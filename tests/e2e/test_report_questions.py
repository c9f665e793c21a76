"""The report's question tree in a real browser: graphs of the offline suite, answers from pixels."""

from __future__ import annotations

import io
import json
import random

import numpy as np
import pytest
from PIL import Image
from report_runs import HOSTILE_TEXT, encode, make_run, make_spec

from sar_eval.answerers.shapes import ShapesAnswerer
from sar_eval.suites.dpg.questions import Question, read_questions, write_questions
from sar_eval.suites.dpg.scoring import score_questions
from sar_eval.suites.shapes.questions import make_suite
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import Scene, Shape, sample_scene
from sar_eval.suites.shapes.vocabulary import BACKGROUND, PALETTE
from sar_eval.types import Prompt, Verdict

DEEP = [
    Question(7, "Is the circle left of the square?", (5, 6), "relation", "spatial"),
    Question(6, "Is the square blue?", (4,), "attribute", "color"),
    Question(5, "Is the circle red?", (3,), "attribute", "color"),
    Question(4, "Is there exactly one square?", (2,), "other", "count"),
    Question(3, "Is there exactly one circle?", (1,), "other", "count"),
    Question(2, "Is there a square?", (), "entity", "whole"),
    Question(1, "Is there a circle?", (), "entity", "whole"),
]
CYCLE = [Question(1, "First?", (2,)), Question(2, "Second?", (1,)), Question(3, "Third?", (3, 9))]

# Evidence of an image without a score, because a question has no answer.
UNANSWERED = {
    "answerer": "server",
    "questions": [
        {"id": 1, "question": "First?", "answer": "yes", "yes": True, "soft": 0.9, "truncated": False},
        {"id": 2, "question": "Second?", "answer": "", "yes": None, "soft": None, "truncated": False}
        | {"error": "timed out"},
    ],
}


def two_circles() -> np.ndarray:
    """One circle too many: 3 is answered no, and 5 and 7, which are answered yes, must not count."""
    circles = [Shape("circle", "red", 4, y, 20, PALETTE["red"]) for y in (8, 36)]
    square = Shape("square", "blue", 40, 22, 20, PALETTE["blue"])
    return render(Scene((*circles, square), BACKGROUND, "", {}))


def evidence(questions, pixels: np.ndarray) -> dict:
    """As the judge vqa writes it, with the answerer's own answers."""
    with ShapesAnswerer() as answerer:
        answers = list(next(iter(answerer.answer([(pixels, [q.text for q in questions])]))))
    rows = []
    counts = score_questions(questions, [bool(answer.yes) for answer in answers])
    for question, answer, counted in zip(questions, answers, counts, strict=True):
        row = {"id": question.id, "question": question.text, "answer": answer.text}
        row |= {"yes": answer.yes, "soft": answer.soft, "truncated": answer.truncated}
        rows.append(row | {"zeroed_by": list(counted.zeroed_by), "counted": counted.counted})
    return {"answerer": "shapes", "questions": rows}


def hostile_evidence() -> dict:
    row = {
        "question": HOSTILE_TEXT,
        "answer": f"maybe {HOSTILE_TEXT}",
        "yes": False,
        "soft": 0.4375,
        "truncated": True,
    }
    rows = [{"id": question.id, **row, "zeroed_by": [], "counted": 0} for question in CYCLE]
    return {"answerer": "</script>", "questions": rows}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Three prompts of our own, one of them hostile, then ten of the suite."""
    prompts = [
        Prompt("deep", "a photo of a red circle left of a blue square", "t", write_questions(DEEP)),
        Prompt("cycle", "in a cycle", "t", write_questions(CYCLE)),
        Prompt("unanswered", "a question without an answer", "t", write_questions(CYCLE[:2])),
        *(Prompt(row["id"], row["text"], row["tag"], row["checks"]) for row in make_suite(per_task=2)),
        Prompt("plain", "no questions", "t"),
    ]
    rng = random.Random(2)
    images = {
        f"{prompt.id}/{index}": render(sample_scene(rng, style="clean"))
        for prompt in prompts
        for index in range(2)
    }
    images["deep/0"] = two_circles()
    run = make_run(
        tmp_path_factory.mktemp("run"),
        prompts,
        make_spec(benchmark="dpg-shapes", fold="", batch_size=64),
        lambda draw: encode(images[draw.key], 256),
    )
    verdicts = []
    for key, prompt in run.expected.items():
        if prompt.checks is None:
            verdicts.append(Verdict(key, "shapes", "1", error="no questions"))
            continue
        questions = read_questions(prompt.checks)
        if prompt.id == "unanswered":
            verdicts.append(Verdict(key, "shapes", "1", evidence=UNANSWERED, error="question 2: timed out"))
            continue
        judged = hostile_evidence() if prompt.id == "cycle" else evidence(questions, images[key])
        score = float(np.mean([row["counted"] for row in judged["questions"]]))
        verdicts.append(Verdict(key, "shapes", "1", score, evidence=judged))
    run.store_verdicts(0, verdicts)
    return run.write()


def tree(page, selector: str = "#questions") -> list:
    """[number, answer's mark, answer, notes, children] of every node, as the nested lists say."""
    return page.locator(selector).evaluate("""function walk(list) {
        return [...list.children].map(item => {
            const badge = item.querySelector(":scope > .question > .badge");
            const below = item.querySelector(":scope > ul");
            return [
                parseInt(item.querySelector(":scope > .question > .text").textContent),
                badge.className.replace("badge ", ""),
                badge.textContent,
                [...item.querySelectorAll(":scope > .note")].map(note => note.textContent),
                below ? walk(below) : [],
            ];
        });
    }""")


def test_the_graph_is_a_tree_with_answers_and_what_zeroed_them(watched, path) -> None:
    page = watched.open(path, "#image=deep/0")
    by_3, by_5 = (f"Counts as no, because question {number} does." for number in (3, 5))
    relation = [7, "zeroed", "yes", [by_5, "Also depends on question 6."], []]
    circle = [3, "fail", "no", [], [[5, "zeroed", "yes", [by_3], [relation]]]]
    square = [4, "pass", "yes", [], [[6, "pass", "yes", [], []]]]
    assert tree(page) == [[1, "pass", "yes", [], [circle]], [2, "pass", "yes", [], [square]]]
    assert page.inner_text("#questions-counted") == "4 of 7 count as yes"
    assert page.locator("#questions .text").first.inner_text() == "1. Is there a circle?"
    assert page.locator("#view-verdict").inner_text() == "0.571"
    assert page.locator("#questions .soft").count() == 0
    assert json.loads(page.inner_text("#evidence")) == {"answerer": "shapes"}


def test_cycles_and_hostile_text_do_no_harm(watched, path) -> None:
    page = watched.open(path, "#image=cycle/0")
    answer, cut = f"maybe {HOSTILE_TEXT}", "Truncated: longer than the judge's maximum input."
    second = [2, "fail", answer, [cut], []]
    assert tree(page) == [
        [3, "fail", answer, ["Also depends on question 9.", cut], []],
        [1, "fail", answer, [cut], [second]],
    ]
    assert page.locator("#questions .text").first.inner_text() == f"3. {HOSTILE_TEXT}"
    assert page.locator("#questions .soft").all_inner_texts() == ["p(yes) 0.438"] * 3
    assert page.locator("script").count() == 2
    assert page.locator("img[src=x]").count() == 0


def test_answers_about_an_unscored_image_are_shown_without_scores(watched, path) -> None:
    page = watched.open(path, "#image=unanswered/0")
    second = [2, "none", "no answer", ["timed out"], []]
    assert tree(page) == [[1, "none", "yes", [], [second]]]
    assert page.inner_text("#questions-counted") == "not scored"


def test_every_image_shows_its_own_answers(watched, path) -> None:
    page = watched.open(path, "#image=composition-001/1")
    suite = {row["id"]: row for row in make_suite(per_task=2)}
    texts = page.locator("#questions .text").all_inner_texts()
    expected = suite["composition-001"]["checks"]["questions"]
    assert sorted(texts) == sorted(f"{row['id']}. {row['text']}" for row in expected)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('details').textContent.includes('plain/0')")
    assert page.locator("#view-questions").is_hidden()
    assert page.locator("#questions li").count() == 0


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 800)])
def test_the_tree_stays_in_its_panel_beside_the_image(watched, path, width, height) -> None:
    watched.page.set_viewport_size({"width": width, "height": height})
    page = watched.open(path, "#image=deep/0")
    panel = page.locator(".panel-body").bounding_box()
    for box in (row.bounding_box() for row in page.locator("#questions li").all()):
        assert panel["x"] <= box["x"]
        assert box["x"] + box["width"] <= panel["x"] + panel["width"]
    assert page.locator(".panel-body").evaluate("panel => panel.scrollWidth <= panel.clientWidth")
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        assert shot.size == (width, height)
