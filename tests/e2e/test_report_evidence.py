"""What the report's page makes of a judge's evidence, in a real browser: it may be any JSON, or none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report_runs import begin, encode, make_spec

from sar_eval.types import Generation, Prompt, Verdict, make_draw

ANSWERED = {
    "id": 2,
    "question": "Is the dog red?",
    "answer": "yes",
    "yes": True,
    "soft": 0.75,
    "truncated": False,
    "zeroed_by": [1],
    "counted": 0,
}
BOX = {"name": "dog", "box": [0, 0, 4, 4], "score": 0.9, "color": "red"}
HUGE = 10**12


def write_page(path, evidence, checks=None):
    """A run of one image with this evidence, on disk."""
    prompt = Prompt("a", "a dog", checks=checks)
    run = begin(path, [prompt], make_spec(images_per_prompt=1, fold=""))
    draw = make_draw(prompt, 0, 0)
    generation = Generation(draw.key, draw.seed, image=encode(np.full((8, 8, 3), 99, np.uint8)))
    run.store(0, [(prompt, generation)], [Verdict(draw.key, "shapes", "1", 0.5, evidence=evidence)])
    return run.write()


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """One page for all tests that only call its functions."""
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(write_page(tmp_path_factory.mktemp("run"), {}).as_uri())
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def read(page):
    def read(evidence):
        text = evidence if isinstance(evidence, str) else json.dumps(evidence)
        return page.evaluate("text => readEvidence(text)", text)

    return read


def test_the_two_most_likely_colours(read) -> None:
    colors = {"blue": 0.05, "red": 0.7, "orange": 0.2, "pink": 0.05}
    [box] = read({"boxes": [BOX | {"colors": colors}]})["boxes"]
    assert box["colors"] == [["red", 0.7], ["orange", 0.2]]
    assert box | {"name": "dog", "color": "red", "score": 0.9, "box": [0, 0, 4, 4]} == box


@pytest.mark.parametrize("colors", [None, {}, [], "red", {"red": None}, {"red": "x"}])
def test_malformed_colours_are_none(read, colors) -> None:
    assert read({"boxes": [BOX | {"colors": colors}]})["boxes"][0]["colors"] == []


@pytest.mark.parametrize(
    "entry",
    [None, 3, [], {"name": "x"}, {"box": [0, 0, 1, 1]}, BOX | {"box": [1, 2, 3]}, BOX | {"box": "0123"}],
)
def test_malformed_boxes_are_left_out(read, entry) -> None:
    assert [box["name"] for box in read({"boxes": [entry, BOX]})["boxes"]] == ["dog"]


def test_questions_and_the_rest_of_the_evidence(read) -> None:
    found = read({"answerer": "mplug", "questions": [ANSWERED, {**ANSWERED, "soft": None}]})
    expected = {"text": "Is the dog red?", "counted": False, "zeroed_by": [1], "soft": 0.75, "yes": True}
    assert expected.items() <= found["questions"][0].items()
    assert found["questions"][1]["soft"] is None
    assert json.loads(found["rest"]) == {"answerer": "mplug"}


def test_answers_about_an_unscored_image(read) -> None:
    answered = {name: value for name, value in ANSWERED.items() if name not in ("zeroed_by", "counted")}
    failed = answered | {"id": 3, "answer": "", "yes": None, "soft": None, "error": "timed out"}
    first, second = read({"questions": [answered, failed]})["questions"]
    assert (first["yes"], first["counted"], first["zeroed_by"], first["problem"]) == (True, None, [], "")
    assert (second["yes"], second["counted"], second["problem"]) == (False, None, "timed out")


@pytest.mark.parametrize(
    "malformed", ["text", [], {}, [None], [{**ANSWERED, "id": "x"}], [ANSWERED, {"id": 3}], [["a"]]]
)
def test_malformed_questions_are_shown_as_other_evidence(read, malformed) -> None:
    found = read({"questions": malformed})
    assert found["questions"] == []
    assert json.loads(found["rest"]) == {"questions": malformed}


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('{"score": NaN}', '{"score": NaN}'),
        ("{broken", "{broken"),
        ('{"seed": 8879519549831536361}', '{"seed": 8879519549831536361}'),  # JavaScript would round it
        ("[" * 100_000 + "]" * 100_000, None),
        ('{"__proto__": {"polluted": 1}}', '{\n  "__proto__": {\n    "polluted": 1\n  }\n}'),
        ('{"constructor": 1, "toString": 2}', '{\n  "constructor": 1,\n  "toString": 2\n}'),
        ("null", ""),
        ("[1]", '{\n  "evidence": [\n    1\n  ]\n}'),
        ("3", '{\n  "evidence": 3\n}'),
    ],
)
def test_other_evidence_is_text_whatever_it_is(read, text, rest) -> None:
    found = read(text)
    assert (found["boxes"], found["questions"]) == ([], [])
    assert found["rest"] == rest if rest is not None else found["rest"]


def test_a_mask_is_taken_as_it_is(read) -> None:
    mask = {"size": [300, 400], "counts": [200 * 300 + 100, *[200, 100] * 199, 200]}
    assert read({"boxes": [BOX | {"mask": mask}]})["boxes"][0]["mask"] == mask


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [10**6, 10**6], "counts": [HUGE]},
        {"size": [1, HUGE], "counts": [0, HUGE]},
        {"size": [4, 4], "counts": [HUGE]},
        {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4, 4], "counts": [8.5, 7.5]},
        {"size": [0, 0], "counts": []},
        {"size": [4], "counts": [4]},
        {"size": [1000, 1000], "counts": [1] * 1_000_000},
        {"size": {"a": 1}, "counts": "x"},
    ],
)
def test_a_mask_that_is_too_large_or_none_is_not_drawn(read, mask) -> None:
    [box] = read({"boxes": [BOX | {"mask": mask}]})["boxes"]
    assert box["mask"] is None
    assert box["note"].endswith("not drawn")


def test_a_mask_of_a_terapixel_is_a_note_beside_its_box(watched, tmp_path) -> None:
    mask = {"size": [10**6, 10**6], "counts": [0, HUGE]}
    page = watched.open(write_page(tmp_path, {"boxes": [BOX | {"mask": mask}]}), "#image=a/0")
    assert (
        page.inner_text("#box-rows .note")
        == "mask of 1000000 \N{MULTIPLICATION SIGN} 1000000 pixels not drawn"
    )
    assert page.locator("#boxes .box").count() == 1


def test_evidence_of_many_megabytes_is_cut(watched, tmp_path) -> None:
    path = write_page(tmp_path, {"text": "x" * 3_000_000})
    assert path.stat().st_size < 200_000
    page = watched.open(path, "#image=a/0")
    assert "the first 10,000 of 3,000,012 characters" in page.inner_text("#evidence")


@pytest.mark.parametrize(
    ("checks", "parents"),
    [
        (
            {"questions": [{"id": 2, "text": "b?", "parents": [1, 3]}, {"id": 1, "text": "a?"}]},
            [[2, [1, 3]], [1, []]],
        ),
        (None, []),
        ([], []),
        ({"include": []}, []),
        ({"questions": "x"}, []),
        ({"questions": [{"id": "1"}]}, []),
        ({"questions": [{"id": 1, "parents": 3}]}, []),
    ],
)
def test_parents_of_a_prompt_and_of_other_checks(page, checks, parents) -> None:
    assert page.evaluate("text => [...readParents(text)]", json.dumps(checks)) == parents
