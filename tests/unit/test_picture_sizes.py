"""A picture's size as people ask for it: by flags and recipes, whole, by halves and twice."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.recipe import SIZE, check_size, joined_protocol, load_recipe
from sar_eval.stages.resolve import resolve
from sar_eval.types import DrawProtocol

SIDES = st.integers(-1, 300) | st.sampled_from([0, 2**70, True, 1.5, "64", None])


def _recipe(tmp_path: Path, protocol: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(f"suite = 'shapes.jsonl'\n[protocol]\n{protocol}\n")
    return str(path)


def _protocol(recipe: str = "shapes", **asked: int) -> DrawProtocol:
    return resolve(load_recipe(recipe), "demo:sft", asked).protocol


def test_flags_say_a_size(tmp_path: Path) -> None:
    found = _protocol(width=64, height=96)
    assert (found.size, found.resolution, found.name) == ((96, 64), 96, "shapes+")
    assert _protocol(width=72, height=72) == _protocol(resolution=72)
    assert _protocol(width=64, height=64) == _protocol()  # the recipe's own


def test_a_flags_size_replaces_a_recipes(tmp_path: Path) -> None:
    tall = _recipe(tmp_path, "width = 64\nheight = 96")
    assert _protocol(tall).size == (96, 64)
    assert _protocol(tall, resolution=72).size == (72, 72)
    assert _protocol(tall, width=96, height=64).size == (64, 96)


def test_a_note_says_that_squares_were_trained_on() -> None:
    for asked, expected in (({"width": 64, "height": 96}, 1), ({"resolution": 96}, 0)):
        notes: list[str] = []
        resolve(load_recipe("shapes"), "demo:sft", asked, notes)
        assert sum("64x96 pixels (width x height) are drawn as asked" in note for note in notes) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"width": 64}, r"--width is 64, and no --height is said: say both, or for a square --resolution"),
        ({"height": 64}, r"--height is 64, and no --width is said"),
        ({"width": 0, "height": 64}, "--width is 0: it must be a whole number of at least 1"),
        ({"width": 64, "height": -8}, "--height is -8: it must be"),
        (
            {"width": 64, "height": 96, "resolution": 64},
            "leave out --resolution or leave out --width and --height",
        ),
        ({"width": 64, "resolution": 64}, r"--resolution is the side of a square, and --width say"),
        ({"width": 60, "height": 96}, r"width 60 is no multiple of 8, .*; the nearest: 56 and 64"),
        ({"width": 64, "height": 101}, r"height 101 is no multiple of 8, .*; the nearest: 96 and 104"),
        ({"resolution": 100}, r"resolution 100 is no multiple of 8, .*; the nearest: 96 and 104"),
        ({"width": 4, "height": 64}, "width is 4: it must lie between 8 and 8192"),
        ({"width": 64, "height": 8200}, "height is 8200: it must lie between 8 and 8192"),
        ({"width": 64, "height": 512}, "resolution 64x512 takes 512 visual tokens; .* has 256 positions"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(asked: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        _protocol(**asked)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("width = 64", r"mine\.toml: protocol\.width is 64, and no protocol\.height is said: say both"),
        ("width = 64\nheight = 96\nresolution = 64", r"mine\.toml: .* leave out protocol\.resolution"),
        ("width = 64.0\nheight = 96", "width is 64.0, it must be of kind int"),
    ],
)
def test_a_recipes_faults_name_the_file(tmp_path: Path, protocol: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        _protocol(_recipe(tmp_path, protocol))


@given(st.lists(st.dictionaries(st.sampled_from(SIZE), SIDES), max_size=3))
def test_any_values_make_a_size_or_a_message(layers: list[dict[str, Any]]) -> None:
    """Whatever stands in the tables: never another error, and the last size that is said is the size."""
    whole = [layer for layer in layers if layer.keys() != {"resolution"} or _is_side(layer["resolution"])]
    try:
        for layer in layers:
            check_size(layer)
    except BadInput:
        with pytest.raises(BadInput):
            joined_protocol(*layers)
        return
    found = DrawProtocol("test", **joined_protocol({"resolution": 8}, *whole))
    said = next((layer for layer in reversed(whole) if layer), {"resolution": 8})
    side = said.get("resolution")
    assert found.size == ((said["height"], said["width"]) if side is None else (side, side))


def _is_side(value: object) -> bool:
    """Of the resolution's kind others see to."""
    return isinstance(value, int) and value is not True
