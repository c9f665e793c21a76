"""What families say of pictures that are no squares, and that they draw them."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.picture_size import size_notes
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.tiny_janus import write_janus

pytestmark = pytest.mark.usefixtures("one_thread")
TALL = DrawProtocol("tall", 48, guidance=5.0, width=32, height=48)


def test_only_a_size_that_was_not_trained_on_has_a_note(tmp_path: Path) -> None:
    [note] = size_notes(TALL, 8, tmp_path)
    assert note.startswith(
        "32x48 pixels (width x height) are drawn as asked; the checkpoint was not trained"
    )
    assert size_notes(DrawProtocol("square", 48), 8, tmp_path) == ()
    (tmp_path / "sar_eval.json").write_text(json.dumps({"resolution": 32, "sizes": [[4, 4], [6, 4]]}))
    assert size_notes(TALL, 8, tmp_path) == ()
    assert size_notes(DrawProtocol("wide", 48, width=48, height=32), 8, tmp_path) != ()


@pytest.mark.parametrize("sizes", ["6x4", [[6]], [[6, "4"]], 3])
def test_broken_sizes_are_refused_by_the_files_name(tmp_path: Path, sizes: object) -> None:
    (tmp_path / "sar_eval.json").write_text(json.dumps({"sizes": sizes}))
    with pytest.raises(BadInput, match=r"sar_eval\.json, sizes"):
        size_notes(TALL, 8, tmp_path)


def test_janus_draws_a_rectangle_with_a_note(tmp_path: Path) -> None:
    folder = write_janus(tmp_path / "janus")
    [note] = find_checkpoint(str(folder)).check_protocol(TALL)
    assert "32x48 pixels" in note
    draws = [make_draw(Prompt("p", "a red ring"), 0, 5)]
    found = {}
    for speculate in (False, True):
        with NativeEngine(str(folder), TALL, speculate=speculate) as engine:
            [found[speculate]] = engine.generate(draws)
    assert found[True].tokens == found[False].tokens
    assert len(found[True].tokens) == 6
    with Image.open(io.BytesIO(found[True].image or b"")) as image:
        assert image.size == (32, 48)
