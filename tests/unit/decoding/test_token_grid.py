"""Pictures that are no squares: the same tokens from every engine, and pixels in the right place."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.decoding.token_grid import token_grid
from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.types import Draw, DrawProtocol, Generation, Prompt, make_draw

pytestmark = pytest.mark.usefixtures("one_thread")
WIDE = DrawProtocol(
    "wide", 40, guidance=3.0, negative_prompt="a cross", width=40, height=32
)  # 4 x 5 tokens
TALL = replace(WIDE, width=32, height=40)
ROW = replace(WIDE, width=40, height=8)
COLUMN = replace(WIDE, width=8, height=40)
TEXTS = ("a photo of a red star", "a ring", "a sketch of two blue circles and a green heart")


def _draws() -> list[Draw]:
    return [make_draw(Prompt(f"p{n}", TEXTS[n % 3]), n, run_seed=7) for n in range(5)]


def _drawn(engine: NativeEngine | HfEngine) -> dict[str, Generation]:
    with engine:
        found = {g.key: g for g in engine.generate(_draws())}
    assert {g.error for g in found.values()} == {None}
    return found


def _tokens(found: Mapping[str, Generation]) -> dict[str, tuple[int, ...]]:
    return {key: g.tokens for key, g in found.items()}


def test_a_grid_is_height_and_width() -> None:
    assert token_grid(WIDE, 8, "pixels") == (4, 5)
    assert token_grid(TALL, 8, "pixels") == (5, 4)
    assert token_grid(DrawProtocol("square", 40), 8, "pixels") == (5, 5)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (replace(WIDE, width=41, resolution=41), "width 41 is no multiple of 8, a; the nearest: 40 and 48"),
        (replace(WIDE, height=3), "height 3 is no multiple of 8, a; the nearest: 8"),
        (DrawProtocol("square", 0), "resolution 0 is no multiple of 8, a; the nearest: 8"),
    ],
)
def test_what_is_no_grid_names_the_nearest(protocol: DrawProtocol, message: str) -> None:
    with pytest.raises(BadInput, match=f"{message}$"):
        token_grid(protocol, 8, "a")


@pytest.mark.parametrize("shape", [WIDE, TALL, ROW, COLUMN], ids=["wide", "tall", "row", "column"])
@pytest.mark.parametrize("changes", [{}, {"guidance": 1.0, "top_k": 9}, {"temperature": 0.0}], ids=str)
def test_every_engine_draws_the_same_tokens_of_a_rectangle(
    tiny_checkpoint: Path, shape: DrawProtocol, changes: dict[str, float]
) -> None:
    protocol = replace(shape, **changes)
    expected = _tokens(_drawn(HfEngine(str(tiny_checkpoint), protocol)))
    assert {len(tokens) for tokens in expected.values()} == {shape.width * shape.height // 64}
    assert len(set(expected.values())) >= 2
    for batch_size in (1, 3):
        engine = NativeEngine(str(tiny_checkpoint), protocol, batch_size=batch_size)
        assert _tokens(_drawn(engine)) == expected
    for window in (1, 3, 16):  # longer than a row, too
        engine = NativeEngine(str(tiny_checkpoint), protocol, speculate=True, window=window)
        assert _tokens(_drawn(engine)) == expected


def test_pixels_are_the_tokens_row_by_row(tiny_checkpoint: Path) -> None:
    engine = NativeEngine(str(tiny_checkpoint), WIDE)
    found = list(_drawn(engine).values())
    with engine:
        codes = torch.tensor([generation.tokens for generation in found]).view(5, 4, 5)
        pixels = engine.image_decoder.decode(codes).pixels.numpy()
    for generation, expected in zip(found, pixels, strict=True):
        with Image.open(io.BytesIO(generation.image or b"")) as image:
            assert image.size == (40, 32)
            assert np.array_equal(np.asarray(image), expected)


def test_tokens_are_numbered_row_by_row(tiny_checkpoint: Path) -> None:
    """This checkpoint knows no rows: it draws the same sequence for either shape, cut otherwise."""
    wide, tall = (_tokens(_drawn(NativeEngine(str(tiny_checkpoint), shape))) for shape in (WIDE, TALL))
    assert wide == tall


def test_a_rectangle_with_too_many_tokens_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(BadInput, match="320x64 takes 320 visual tokens; the checkpoint has 256"):
        NativeEngine(str(tiny_checkpoint), replace(WIDE, width=320, height=64, resolution=320))
