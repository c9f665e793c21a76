"""Measures: names, options and costs of judges and scorers, and that one picture's fault stays its own."""

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval import discover
from sar_eval.errors import BadInput, DeviceLost, UnknownName
from sar_eval.images import picture
from sar_eval.storage.set_rows import Value
from sar_eval.synthesis import measures
from sar_eval.synthesis.measures import Drawn, MeasureSpec, OpenMeasures, measure_specs
from sar_eval.types import Generation, Prompt, make_draw
from tests import red_judge

TESTS = Path(__file__).parents[2]
RED = f"{TESTS / 'red_judge.py'}:JUDGE"
GREY = f"{TESTS / 'grey_scorer.py'}:SCORER"


def drawn(*pixels, text="a cat"):
    """A draw for each first pixel, all of prompts with the same id."""
    return [one(row, pixel, text) for row, pixel in enumerate(pixels)]


def one(row, pixel, text):
    draw = make_draw(Prompt("twin", text), 0, 0)
    image = np.full((4, 4, 3), 90, np.uint8)
    image[0, 0] = pixel
    file = BytesIO()
    Image.fromarray(image).save(file, "png")
    return Drawn(row, draw, Generation(draw.key, draw.seed, image=file.getvalue()))


def ask(items, *sources, options=None):
    specs = measure_specs(sources, options)
    with OpenMeasures(specs) as opened:
        return {spec.name: opened.ask(spec.name, items) for spec in specs}


def test_values_are_plain_numbers_by_draw_though_ids_are_the_same():
    found = ask(drawn((255, 255, 0), (51, 0, 0)), RED)["red_judge"]
    assert found == [Value(1.0, True), Value(pytest.approx(0.2), False)]
    assert type(found[1].score) is float
    assert type(found[1].passed) is bool
    assert ask([], RED) == {"red_judge": []}


@pytest.mark.parametrize(
    ("blue", "why"),
    [
        (1, "torn"),
        (2, "ZeroDivisionError: three"),
        (red_judge.FORGET, "no verdict"),
        (red_judge.TWICE, "two verdicts"),
        (red_judge.NAN, "score is .*nan"),
        (red_judge.OTHER, "which it was not asked for"),
        (red_judge.NONE, "no score"),
        (red_judge.NO_VERDICT, "a str in place of a verdict"),
    ],
)
def test_a_fault_at_one_picture_is_its_own(blue, why, tmp_path):
    """The others are judged, and none of them twice."""
    log = tmp_path / "log"
    items = drawn((255, 0, 0), (255, 0, blue), (0, 255, 0), (51, 0, 0))
    found = ask(items, RED, options={RED: {"log": str(log)}})["red_judge"]
    assert [value.score for value in found] == [1.0, None, 0.0, pytest.approx(0.2)]
    assert re.search(why, found[1].error)
    batches = log.read_text().splitlines()
    assert batches[0] == "0/0 1/0 2/0 3/0"
    assert "0/0" not in batches[1:]


def test_a_lost_device_is_raised():
    with pytest.raises(DeviceLost, match="the card is gone"):
        ask(drawn((255, 0, 0), (255, 0, 3)), RED)


def test_scorers_share_one_decoding_and_their_faults_are_the_pictures(monkeypatch):
    decoded = []
    real = picture.decode_stored
    monkeypatch.setattr(picture, "decode_stored", lambda data: decoded.append(1) or real(data))
    items = drawn((0, 0, 0), (255, 255, 255))
    found = ask(items, "colourfulness", GREY)
    assert len(decoded) == 2
    assert found["grey_scorer"] == [Value(0.0), Value(error="too white")]
    assert found["colourfulness"][0].score == pytest.approx(0.0)
    items[0].forget()
    assert items[0].picture.image.size == (4, 4)
    assert len(decoded) == 3


def test_the_order_is_that_of_cost_and_then_of_appearance():
    table = {RED: {"cost": 3.0}}
    names = ["vqa", "colourfulness", GREY, RED, "shapes", "shapes_soft", "shapes-soft"]
    options = {"vqa": {"answerer": "shapes"}, **table}
    found = [spec.name for spec in measure_specs(names, options)]
    assert found == ["colourfulness", "vqa", "shapes", "shapes-soft", "red_judge", "grey_scorer"]


def test_every_network_of_ours_has_a_cost():
    """But for those that the user chooses."""
    scorers = {
        f"{name}:{variant}": facts.cost
        for name in discover.names("scorers")
        for variant, facts in discover.load("scorers", name).variants.items()
    }
    assert {name for name, cost in scorers.items() if cost is None} == {"vqascore:qwen"}
    assert scorers["clip:hessel"] < scorers["imagereward:"] < scorers["hps:v2.1"] < scorers["hpsv3:"]
    assert discover.load("judges", "shapes").cost < discover.load("judges", "geneval").cost


def test_what_changes_no_value_is_not_in_the_identity():
    first, second = (
        measure_specs([RED], {RED: {"log": log, "cost": cost}})[0] for log, cost in (("", 1.0), ("/x", 9.0))
    )
    assert first.identity == second.identity
    assert first.identity != measure_specs([RED], {RED: {"version": "8"}})[0].identity
    assert str(TESTS) not in json.dumps(first.identity)
    (scorer,) = measure_specs(["colourfulness"], {"colourfulness": {"images_at_once": 3}})
    assert scorer.identity["options"] == {}
    stored = json.loads(json.dumps(second.to_json()))
    assert MeasureSpec.from_json(stored, "spec.json") == second
    with pytest.raises(BadInput, match=r"spec.json: kind"):
        MeasureSpec.from_json({**stored, "kind": 3}, "spec.json")


def test_another_version_on_this_machine_is_refused():
    (spec,) = measure_specs([RED])
    stored = MeasureSpec.from_json({**spec.to_json(), "version": "6"}, "spec.json")
    with (
        pytest.raises(BadInput, match="has version 7 here, but the set was begun with 6"),
        OpenMeasures([stored]),
    ):
        pass


@pytest.mark.parametrize(
    ("names", "options", "why"),
    [
        (["shaps"], {}, "did you mean 'shapes'"),
        (["clip:hessle"], {}, "did you mean 'hessel'"),
        (["shapes"], {"colourfulness": {}}, "what is asked is shapes"),
        (["shapes"], {"shapes": 3}, "a table"),
        (["shapes"], {"shapes": {"nope": 3}}, "nope"),
        (["colourfulness"], {"colourfulness": {"nope": 3}}, "nope"),
        (["colourfulness"], {"colourfulness": {"images_at_once": 0}}, "batch_size"),
        ([RED], {RED: {"cost": "dear"}}, "GFLOP"),
        ([RED, RED.replace("tests/", "tests/../tests/")], {}, "two measures are called 'red_judge'"),
        (["a\x00b"], {}, "NUL"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_drawn(names, options, why):
    with pytest.raises((BadInput, UnknownName), match=why):
        measure_specs(names, options)


def test_options_of_a_scorer_hold_for_its_variants():
    table = {"clip": {"dtype": "bfloat16"}, "clip:vit-h": {"dtype": "float16"}}
    assert measures._tables(table, ["clip:hessel", "clip:vit-h"]) == [
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
    ]
