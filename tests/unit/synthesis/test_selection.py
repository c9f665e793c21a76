"""Selection: fates as a function of verdicts, against a reference that knows everything at once."""

from collections import Counter
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images import picture
from sar_eval.storage.set_rows import FATES, Value
from sar_eval.synthesis import selection as module
from sar_eval.synthesis.expression import parse_filter, parse_rank
from sar_eval.synthesis.measures import Drawn, MeasureSpec, OpenMeasures
from sar_eval.synthesis.selection import Selection, count_fates, make_selection, select
from sar_eval.types import Generation, Prompt, make_draw

RED = f"{Path(__file__).parents[2] / 'red_judge.py'}:JUDGE"
SPECS = tuple(MeasureSpec(name, name, "scorer", "1", cost=float(n)) for n, name in enumerate("abcd"))
FILTERS = [
    "",
    "a > 0.5",
    "a > 0.5 and b.passed",
    "b.passed or a > 0.5 and c > 0.5",
    "not (a > 0.5 or b > 1)",
]


class Told(OpenMeasures):
    """Measures that say what a table holds, and note what they were asked."""

    def __init__(self, table):
        super().__init__(SPECS)
        self.table, self.asked = table, []

    def ask(self, name, items):
        self.asked += [(name, item.key) for item in items]
        return [self.table[item.key][name] for item in items]


@cache
def png(seed, changed=0):
    """Noise; with `changed`, one pixel of it is another."""
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    pixels[0, 0] ^= changed
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def draw(row, index, image, error=None):
    made = make_draw(Prompt(f"p{row}", "a cat"), index, 0)
    return Drawn(row, made, Generation(made.key, made.seed, image=image, error=error))


values = st.builds(
    lambda kind, number: {"error": Value(error="lost"), "half": Value(number)}.get(
        kind, Value(number, number > 0.5)
    ),
    st.sampled_from(["error", "half", *3 * ["whole"]]),
    st.sampled_from([0.0, 0.25, 0.75, 1.0]),
)


@st.composite
def blocks(draw_from):
    """Draws of some prompts, what measures say of each, and a selection."""
    drawn, table = [], {}
    for row in draw_from(st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=3)):
        for index in range(draw_from(st.integers(1, 4))):
            seed = draw_from(st.integers(0, 5))
            item = draw(row, index, png(seed) if seed else None, "out of memory" if seed == 0 else None)
            drawn.append(item)
            table[item.key] = {name: draw_from(values) for name in "abcd"}
    chosen = Selection(
        draw_from(st.sampled_from(FILTERS)),
        draw_from(st.sampled_from(["", "b", "c - a"])),
        draw_from(st.integers(0, 2)),
        draw_from(st.sampled_from(["keep", "exact", "0", "4"])),
        SPECS,
    )
    return drawn, table, chosen


def fate_by_all_values(item, table, chosen):
    """Before ranking, as if everything had been asked."""
    if item.generation.error is not None:
        return "failed"
    passes = parse_filter(chosen.filter, str).evaluate(table[item.key])
    if passes is None or (passes and chosen.rank and _rank(item, table, chosen) is None):
        return "unjudged"
    return "candidate" if passes else "filtered"


def _rank(item, table, chosen):
    return parse_rank(chosen.rank, str).evaluate(table[item.key]) if chosen.rank else 0.0


def expected(drawn, table, chosen):
    fates = {item.key: fate_by_all_values(item, table, chosen) for item in drawn}
    seen = set()
    for row in {item.row for item in drawn}:
        candidates = [item for item in drawn if item.row == row and fates[item.key] == "candidate"]
        candidates.sort(key=lambda item: (-_rank(item, table, chosen), item.draw.index))
        for item in candidates[chosen.top or None :] if chosen.top else ():
            fates[item.key] = "outranked"
    for item in drawn:
        if fates[item.key] == "candidate":
            twin = chosen.duplicates != "keep" and item.generation.image in seen
            fates[item.key] = "duplicate" if twin else "kept"
            seen.add(item.generation.image)
    return fates


@pytest.fixture(autouse=True)
def names_of_the_table(monkeypatch):
    """The language knows judges and scorers by name; here they are a, b, c and d."""
    monkeypatch.setattr(module, "parse_filter", lambda text: parse_filter(text, str))
    monkeypatch.setattr(module, "parse_rank", lambda text: parse_rank(text, str))


class TestAgainstAllValues:
    @settings(max_examples=80)
    @given(blocks())
    def test_fates_are_those_of_knowing_everything(self, block):
        drawn, table, chosen = block
        told = Told(table)
        found = select(drawn, chosen, told)
        assert [outcome.drawn for outcome in found] == drawn
        assert {outcome.drawn.key: outcome.fate for outcome in found} == expected(drawn, table, chosen)
        assert {outcome.fate for outcome in found} <= set(FATES)
        assert sum(count_fates(found).values()) == len(drawn)
        assert len(told.asked) == len(set(told.asked))  # nothing is asked twice
        for outcome in found:
            asked = {name for name, key in told.asked if key == outcome.drawn.key}
            assert asked == set(outcome.values)
            assert bool(outcome.pixels) == (outcome.fate != "failed")
            assert (outcome.fate in ("kept", "filtered")) <= (outcome.drawn.generation.image is not None)
            assert outcome.drawn._picture is None  # memory stays flat

    @settings(max_examples=30)
    @given(blocks(), st.integers(1, 5))
    def test_how_many_pictures_are_decoded_at_once_changes_nothing(self, block, at_once):
        drawn, table, chosen = block
        with pytest.MonkeyPatch.context() as patch:
            whole = _facts(select(drawn, chosen, Told(table)))
            patch.setattr(module, "DECODED_AT_ONCE", at_once)
            assert _facts(select(drawn, chosen, Told(table))) == whole


def _facts(found):
    return [(o.drawn.key, o.values, o.fate, o.why, o.pixels, o.phash) for o in found]


def told(table, *items, **chosen):
    measures = Told(table)
    return select(items, Selection(**chosen, measures=SPECS), measures), measures


def whole(*numbers):
    return dict(zip("abcd", (Value(n, n > 0.5) for n in numbers), strict=True))


def test_dear_measures_are_asked_only_of_what_can_still_pass():
    items = [draw(0, n, png(n + 1)) for n in range(4)]
    table = {"0/0": whole(0, 1, 1, 1), "0/1": whole(1, 0, 1, 1), "0/2": whole(1, 1, 0, 1)}
    table["0/3"] = whole(1, 1, 1, 1)
    found, measures = told(table, *items, filter="c > 0.5 and b > 0.5 and a > 0.5", rank="d")
    assert Counter(name for name, _ in measures.asked) == {"a": 4, "b": 3, "c": 2, "d": 1}
    assert [o.fate for o in found] == ["filtered", "filtered", "filtered", "kept"]
    assert [o.why for o in found[:3]] == ["a > 0.5", "b > 0.5", "c > 0.5"]


def test_measures_that_nothing_decides_by_are_columns_of_the_kept():
    items = [draw(0, n, png(n + 1)) for n in range(2)]
    table = {"0/0": whole(1, 0.2, 0, 0), "0/1": {**whole(1, 0.3, 0, 0), "c": Value(error="lost")}}
    found, measures = told(table, *items, filter="a > 0.5", rank="b", top=1)
    assert [o.fate for o in found] == ["outranked", "kept"]
    assert found[0].why == "place 2 of 2"
    assert [key for name, key in measures.asked if name in "cd"] == ["0/1", "0/1"]
    assert found[1].values["c"].error == "lost"


def test_equal_ranks_go_to_the_lower_index_and_a_missing_one_is_unjudged():
    items = [draw(0, n, png(n + 1)) for n in (2, 0, 1)]
    table = {"0/0": whole(1, 0, 0, 0), "0/1": whole(1, 0, 0, 0), "0/2": {"a": Value(error="lost")}}
    found, _ = told(table, *items, rank="a", top=1)
    assert {o.drawn.key: o.fate for o in found} == {
        "0/2": "unjudged",
        "0/0": "kept",
        "0/1": "outranked",
    }
    assert found[0].why == "a: lost"


@pytest.mark.parametrize(
    ("rule", "values", "why"),
    [
        ("a > 0.5 or b > 0.5", {"a": Value(error="torn"), "b": Value(0.0)}, "a: torn"),
        (
            "a > 0.5 and c > 1 or b > 0.5",
            {"a": Value(0.0), "b": Value(error="torn"), "c": Value()},
            "b: torn",
        ),
        ("a.passed", {"a": Value(0.7)}, "a: gave none of what is asked"),
        ("1 / a > 1", {"a": Value(0.0)}, "no finite number"),
    ],
)
def test_an_unjudged_draw_says_what_is_missing(rule, values, why):
    found, _ = told({"0/0": {**whole(0, 0, 0, 0), **values}}, draw(0, 0, png(1)), filter=rule)
    assert (found[0].fate, found[0].why) == ("unjudged", why)


def test_of_duplicates_the_earlier_stays():
    """Equal pixels and near hashes; the key is of one that stays."""
    images = [png(1), png(2), png(1), png(1, 255), png(3)]
    items = [draw(row, 0, image) for row, image in enumerate(images)]
    table = {item.key: whole(1, 1, 1, 1) for item in items}
    found, _ = told(table, *items, duplicates="8")
    assert [o.fate for o in found] == ["kept", "kept", "duplicate", "duplicate", "kept"]
    assert [o.why for o in found[2:4]] == ["0/0", "0/0"]
    assert found[0].pixels == found[2].pixels != found[3].pixels
    fates = [Counter(o.fate for o in told(table, *items, duplicates=kind)[0]) for kind in ("exact", "keep")]
    assert fates == [{"kept": 4, "duplicate": 1}, {"kept": 5}]


def test_a_picture_that_cannot_be_decoded_has_failed():
    items = [draw(0, 0, b"no picture"), draw(0, 1, None), draw(0, 2, png(1))]
    found, _ = told({"0/2": whole(0, 0, 0, 0)}, *items)
    assert [o.fate for o in found] == ["failed", "failed", "kept"]
    assert "image" in found[0].why or "picture" in found[0].why
    assert found[1].why == "the engine gave no picture"


def test_real_judges_and_scorers_select(monkeypatch):
    """One decoding a draw, however many look at it; the judge reads the file by itself."""
    monkeypatch.undo()
    decoded = []
    real = picture.decode_stored
    monkeypatch.setattr(picture, "decode_stored", lambda data: decoded.append(1) or real(data))
    chosen = make_selection(
        filter="red_judge > 0.5 and colourfulness > 10".replace("red_judge", f"'{RED}'"),
        rank="colourfulness",
        top=1,
        duplicates="2",
    )
    assert [spec.name for spec in chosen.measures] == ["colourfulness", "red_judge"]
    items = [draw(row, index, png(1 + 3 * row + index)) for row in range(2) for index in range(3)]
    with OpenMeasures(chosen.measures) as measures:
        found = select(items, chosen, measures)
    reds = [real(png(n)).getpixel((0, 0))[0] / 255 for n in range(1, 7)]
    assert [o.values["red_judge"].score for o in found] == pytest.approx(reds)
    for row in range(2):
        candidates = [o for o in found[3 * row : 3 * row + 3] if o.values["red_judge"].score > 0.5]
        best = max(candidates, key=lambda o: o.values["colourfulness"].score, default=None)
        assert [o for o in candidates if o.fate == "kept"] == [best] * bool(candidates)
    assert len(decoded) == 6


def test_a_selection_is_stored_and_read(monkeypatch):
    monkeypatch.undo()
    chosen = make_selection(
        filter="shapes.passed", rank="shapes-soft", top=2, duplicates="3", columns=["colourfulness"]
    )
    assert [spec.name for spec in chosen.measures] == ["colourfulness", "shapes", "shapes-soft"]
    stored = chosen.to_json()
    assert Selection.from_json(stored, "spec.json") == chosen
    for key, value, why in [
        ("filter", "shaps.passed", "did you mean 'shapes'"),
        ("filter", "geneval.passed", "no measure 'geneval'"),
        ("top", -1, "top"),
        ("duplicates", "33", "duplicates '33'"),
        ("rank", 3, "spec.json: rank"),
    ]:
        with pytest.raises(BadInput, match=why):
            Selection.from_json({**stored, key: value}, "spec.json")
    with pytest.raises(BadInput, match="top"):
        make_selection(top=-1)
