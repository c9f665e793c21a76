"""What the report's page knows of a verdict."""

import json

import pytest

from sar_eval.report.evidence import told_parents, told_verdict
from sar_eval.types import Verdict


def _told(**box) -> dict:
    found = {"name": "dog", "box": [0, 0, 4, 4], "score": 0.9, "color": "red", **box}
    verdict = Verdict("a/0", "geneval", "1", 1.0, True, evidence={"boxes": [found]})
    return told_verdict(verdict)["boxes"][0]


def test_the_likeliest_colour_and_its_runner_up() -> None:
    colors = {"blue": 0.05, "red": 0.7, "orange": 0.2, "pink": 0.05}
    assert _told(colors=colors)["colors"] == [["red", 0.7], ["orange", 0.2]]
    assert _told(colors={"red": 1.0})["colors"] == [["red", 1.0]]


def test_boxes_without_colours_or_with_odd_ones() -> None:
    for colors in (None, {}, [], "red", {"red": None}, {"red": float("nan")}):
        assert "colors" not in _told(colors=colors)


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


def test_questions_and_the_rest_of_the_evidence() -> None:
    evidence = {"answerer": "mplug", "questions": [ANSWERED, {**ANSWERED, "soft": None}]}
    told = told_verdict(Verdict("a/0", "vqa", "1", 0.5, evidence=evidence))
    first, second = told["questions"]
    expected = {"text": "Is the dog red?", "counted": False, "zeroed_by": [1], "soft": 0.75, "yes": True}
    assert expected.items() <= first.items()
    assert second["soft"] is None
    assert json.loads(told["evidence"]) == {"answerer": "mplug"}


def test_answers_to_a_image_that_was_not_scored() -> None:
    known = {name: value for name, value in ANSWERED.items() if name not in ("zeroed_by", "counted")}
    failed = known | {"id": 3, "answer": "", "yes": None, "soft": None, "error": "timed out"}
    evidence = {"questions": [known, failed]}
    first, second = told_verdict(Verdict("a/0", "vqa", "1", evidence=evidence, error="3"))["questions"]
    assert (first["yes"], first["counted"], first["zeroed_by"], first["problem"]) == (True, None, [], "")
    assert (second["yes"], second["counted"], second["problem"]) == (False, None, "timed out")


@pytest.mark.parametrize(
    "odd", ["text", [], {}, [None], [{**ANSWERED, "id": "x"}], [ANSWERED, {"id": 3}], [["a"]]]
)
def test_odd_questions_are_shown_as_they_are(odd) -> None:
    told = told_verdict(Verdict("a/0", "vqa", "1", 0.5, evidence={"questions": odd}))
    assert told["questions"] == []
    assert json.loads(told["evidence"]) == {"questions": odd}


def test_parents_of_a_prompt_and_of_other_checks() -> None:
    rows = [{"id": 2, "text": "b?", "parents": [1, 3]}, {"id": 1, "text": "a?"}]
    assert told_parents({"questions": rows}) == {"2": [1, 3], "1": []}
    for checks in (None, [], {"include": []}, {"questions": "x"}):
        assert told_parents(checks) == {}
