"""GenEval's metadata in prompts: what no judge can decide is told, with the nearest known word."""

import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.suites.checks import SYNONYMS, check_classes, nearest_class
from sar_eval.suites.geneval.suite import make_suite
from sar_eval.suites.geneval.vocabulary import CLASSES
from sar_eval.suites.prompts import Suite, load_suite
from sar_eval.suites.shapes.vocabulary import SHAPES
from sar_eval.types import Prompt

ROOT = Path(__file__).parents[3]


def _load(tmp_path: Path, *entries: dict, **more: object) -> Suite:
    row = {"tag": "t", "include": list(entries), "prompt": "a cat", **more}
    (tmp_path / "p.jsonl").write_text(json.dumps({"text": "a"}) + "\n" + json.dumps(row))
    return load_suite(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("keyboard", "computer keyboard"),
        ("mouse", "computer mouse"),
        ("remote", "tv remote"),
        ("cats", "cat"),
        ("Cat", "cat"),
        ("Hot Dogs", "hot dog"),
        ("knives", "knife"),
        ("buses", "bus"),
        ("traffic_light", "traffic light"),
        ("hair dryer", "hair drier"),
        ("sofas", "couch"),
        ("men", "person"),
        ("television", "tv"),
        ("wine glasses", "wine glass"),
        ("red car", "car"),
        ("rnig", "ring"),
        ("Circles", "circle"),
        ("girafe", "giraffe"),
    ],
)
def test_unknown_classes_are_told_with_the_nearest(tmp_path: Path, name: str, near: str) -> None:
    entry = {"class": name, "count": 1}
    for suite in (_load(tmp_path, entry), _load(tmp_path, {"class": "cat", "count": 1}, exclude=[entry])):
        (note,) = suite.notes
        assert f"p.jsonl:2: {name!r} (did you mean {near!r}?)" in note


def test_a_class_like_nothing_is_told_too(tmp_path: Path) -> None:
    (note,) = _load(tmp_path, {"class": "quasar xyz", "count": 1}).notes
    assert note.endswith("p.jsonl:2: 'quasar xyz'")
    names = [{"class": f"quasar{i}", "count": 1} for i in range(9)]
    (note,) = _load(tmp_path, *names, *names).notes  # each once, and not all of them
    assert note.count("quasar") == 5


def test_every_synonym_leads_to_a_class() -> None:
    assert set(SYNONYMS.values()) <= {*CLASSES, *SHAPES}
    assert not set(SYNONYMS) & {*CLASSES, *SHAPES}
    assert all(nearest_class(word) == name for word, name in SYNONYMS.items())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"color": "gray"},
            r"has the color 'gray', which no judge can name: .*red, orange, .*black, white",
        ),
        ({"color": "Red"}, "the color 'Red', .*did you mean 'red'"),
        ({"color": "read"}, "the color 'read', .*did you mean 'red'"),
        ({"color": ["red"]}, "color that is not a name"),
        ({"colour": "red"}, "unknown key 'colour': did you mean 'color'"),
        ({"Count": 2}, "unknown key 'Count': did you mean 'count'"),
        ({"size": "big"}, "unknown key 'size': it may have class, count, color, position"),
    ],
)
def test_what_no_verdict_can_say_is_refused(tmp_path: Path, entry: dict, message: str) -> None:
    with pytest.raises(BadInput, match=rf"p\.jsonl:2: include\[0\] has .*{message.removeprefix('has ')}"):
        _load(tmp_path, {"class": "cat", "count": 1} | entry)


def test_nothing_to_include_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"p\.jsonl:2: include is empty: every image would be correct"):
        _load(tmp_path)


def test_keys_that_exclude_ignores_are_refused(tmp_path: Path) -> None:
    unwanted = {"class": "dog", "count": 1, "color": "red"}
    with pytest.raises(
        BadInput, match=r"exclude\[0\] has an unknown key 'color': it may have class, count"
    ):
        _load(tmp_path, {"class": "cat", "count": 1}, exclude=[unwanted])


def test_other_keys_of_the_metadata_are_kept(tmp_path: Path) -> None:
    entry = {"class": "cat", "count": 1, "color": "red"}
    suite = _load(tmp_path, entry, index=7, detailed_caption="a red cat", scene={"a": [1]})
    assert suite.prompts[1].checks["scene"] == {"a": [1]}
    assert suite.notes == ()


@pytest.mark.parametrize("name", ["geneval", "shapes", "dpg-shapes", "imagereward"])
def test_the_shipped_suites_have_nothing_to_note(name: str) -> None:
    assert load_suite(ROOT / "prompts" / f"{name}.jsonl").notes == ()


def test_a_judge_refuses_the_other_ones_classes() -> None:
    ring = Prompt("r", "a ring", checks={"include": [{"class": "ring", "count": 1}]})
    bare = [Prompt("p", "a"), Prompt("q", "a", checks={"questions": []}), Prompt("s", "a", checks=["?"])]
    check_classes([*bare, ring], SHAPES, "shapes")
    check_classes(
        [Prompt(row["id"], row["text"], checks=row["checks"]) for row in make_suite()], CLASSES, "g"
    )
    with pytest.raises(BadInput, match="prompt r: judge 'geneval' knows no class 'ring'"):
        check_classes([*bare, ring], CLASSES, "geneval")
