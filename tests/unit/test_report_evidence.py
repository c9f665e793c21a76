"""What the report's page knows of a verdict."""

from sar_eval.report_evidence import told_verdict
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
