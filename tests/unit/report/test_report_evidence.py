"""The report page's JSON of verdicts."""

import json

import pytest

from sar_eval.report.evidence import parents_by_question, verdict_to_json
from sar_eval.types import Verdict


def _box_json(**changes) -> dict:
    box = {"name": "dog", "box": [0, 0, 4, 4], "score": 0.9, "color": "red", **changes}
    verdict = Verdict("a/0", "geneval", "1", 1.0, True, evidence={"boxes": [box]})
    return verdict_to_json(verdict)["boxes"][0]


def test_the_two_most_likely_colours() -> None:
    colors = {"blue": 0.05, "red": 0.7, "orange": 0.2, "pink": 0.05}
    assert _box_json(colors=colors)["colors"] == [["red", 0.7], ["orange", 0.2]]
    assert _box_json(colors={"red": 1.0})["colors"] == [["red", 1.0]]


def test_boxes_without_colours_or_with_malformed_ones() -> None:
    for colors in (None, {}, [], "red", {"red": None}, {"red": float("nan")}):
        assert "colors" not in _box_json(colors=colors)


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
    data = verdict_to_json(Verdict("a/0", "vqa", "1", 0.5, evidence=evidence))
    first, second = data["questions"]
    expected = {"text": "Is the dog red?", "counted": False, "zeroed_by": [1], "soft": 0.75, "yes": True}
    assert expected.items() <= first.items()
    assert second["soft"] is None
    assert json.loads(data["evidence"]) == {"answerer": "mplug"}


def test_answers_about_an_unscored_image() -> None:
    answered = {name: value for name, value in ANSWERED.items() if name not in ("zeroed_by", "counted")}
    failed = answered | {"id": 3, "answer": "", "yes": None, "soft": None, "error": "timed out"}
    evidence = {"questions": [answered, failed]}
    first, second = verdict_to_json(Verdict("a/0", "vqa", "1", evidence=evidence, error="3"))["questions"]
    assert (first["yes"], first["counted"], first["zeroed_by"], first["problem"]) == (True, None, [], "")
    assert (second["yes"], second["counted"], second["problem"]) == (False, None, "timed out")


@pytest.mark.parametrize(
    "malformed", ["text", [], {}, [None], [{**ANSWERED, "id": "x"}], [ANSWERED, {"id": 3}], [["a"]]]
)
def test_malformed_questions_are_shown_as_other_evidence(malformed) -> None:
    data = verdict_to_json(Verdict("a/0", "vqa", "1", 0.5, evidence={"questions": malformed}))
    assert data["questions"] == []
    assert json.loads(data["evidence"]) == {"questions": malformed}


def test_parents_of_a_prompt_and_of_other_checks() -> None:
    rows = [{"id": 2, "text": "b?", "parents": [1, 3]}, {"id": 1, "text": "a?"}]
    assert parents_by_question({"questions": rows}) == {"2": [1, 3], "1": []}
    for checks in (None, [], {"include": []}, {"questions": "x"}):
        assert parents_by_question(checks) == {}
