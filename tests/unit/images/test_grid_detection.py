"""How one file shows several images: cut to the pixel, or refused with what was seen."""

import io
import random

import numpy as np
import pytest
from PIL import Image
from test_grids import noise, photo

from sar_eval.images.grid_detection import Reading, read_grid
from sar_eval.images.grids import Grid
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import sample_scene
from tests.image_layouts import BARE, PADDED, lay_out, with_title


def photos(seed: int, number: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [photo(rng, (64, 64)) for _ in range(number)]


def jpeg(pixels: np.ndarray, quality: int = 75) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def assert_cut(image: np.ndarray, tiles, number: int | None = None) -> Grid:
    grid = read_grid(image, number or len(tiles)).grid
    assert grid is not None
    assert grid.fits(image)
    np.testing.assert_array_equal(grid.cut(image), tiles)
    return grid


@pytest.mark.parametrize("content", [photos, lambda seed: noise(seed, (64, 64))], ids=["photo", "noise"])
@pytest.mark.parametrize(
    ("shape", "around", "value", "text"),
    [
        ((2, 2), PADDED, 0, "2 px padding and border, 64x64"),
        ((2, 2), (3, 3, 0, 0, 0, 0), 255, "3 px padding, 64x64"),
        ((2, 2), (4, 4, 4, 4, 4, 4), (200, 30, 30), "4 px padding and border, 64x64"),
        ((2, 2), (40, 40, 40, 40, 40, 40), 255, "40 px padding and border, 64x64"),
        (
            (2, 2),
            (20, 20, 10, 10, 10, 10),
            0,
            "10, 10, 10 and 10 px left, above, right and below, 20 and 20 px",
        ),
        ((2, 2), (20, 20, 2, 2, 2, 2), 0, "2, 2, 2 and 2 px left"),
        ((2, 2), (4, 4, 50, 50, 50, 50), 255, "50, 50, 50 and 50 px left"),
        (
            (2, 2),
            (8, 12, 30, 20, 31, 44),
            255,
            "30, 20, 31 and 44 px left, above, right and below, 8 and 12 px",
        ),
        ((1, 4), PADDED, 0, "1x4, 2 px padding and border, 64x64"),
        ((4, 1), PADDED, 0, "4x1, 2 px padding and border, 64x64"),
        ((1, 4), (5, 0, 0, 0, 0, 0), 255, "1x4, 5 px padding, 64x64"),
    ],
)
def test_tiles_between_lines_are_cut_exactly(content, shape, around, value, text) -> None:
    tiles = content(1)
    assert str(assert_cut(lay_out(tiles, *shape, around, value), tiles)).startswith(text)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize(("around", "value"), [(PADDED, 0), ((3, 3, 0, 0, 0, 0), 255)])
def test_titles_do_not_move_the_cuts(side, text, around, value) -> None:
    tiles = photos(2)
    assert_cut(with_title(lay_out(tiles, 2, 2, around, value), side, text=text), tiles)


@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (4, 1)])
def test_edges_show_tiles_that_touch(shape) -> None:
    for seed in range(10):
        tiles = photos(seed)
        assert assert_cut(lay_out(tiles, *shape), tiles).padding == 0
    assert_cut(lay_out(tiles, *shape, (0, 0, 10, 10, 10, 10)), tiles)


@pytest.mark.parametrize(
    ("number", "shape"), [(9, (3, 3)), (8, (1, 8)), (6, (2, 3)), (2, (1, 2)), (16, (4, 4))]
)
@pytest.mark.parametrize("around", [PADDED, BARE])
def test_other_numbers_of_images(number, shape, around) -> None:
    tiles = photos(3, number)
    assert_cut(lay_out(tiles, *shape, around), tiles)


def test_padding_along_one_axis_is_contradictory() -> None:
    reading = read_grid(lay_out(photos(4), 2, 2, (6, 0, 0, 0, 0, 0)), 4)
    assert reading == Reading(problem="padding found in x, not in y")
    reading = read_grid(lay_out(photos(4), 2, 2, (0, 6, 0, 0, 0, 0)), 4)
    assert reading.problem == "padding found in y, not in x"


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize("lossy", [False, True])
def test_a_title_beside_tiles_that_touch_is_refused(side, lossy) -> None:
    for seed in range(5):
        image = with_title(lay_out(photos(seed), 2, 2), side, text=True)
        assert read_grid(jpeg(image) if lossy else image, 4, lossy=lossy).grid is None


def test_single_images_are_told() -> None:
    for seed in range(20):
        (image,) = photos(seed, 1)
        assert read_grid(image, 4) == Reading(
            problem="no edge in the middle: a single image?", is_single=True
        )
        assert read_grid(jpeg(image), 4, lossy=True).is_single
    strip = np.asarray(Image.fromarray(image).resize((256, 64)))
    assert read_grid(strip, 4).problem == "4.0 times as wide as high: a row of 4?"
    assert read_grid(noise(1, (64, 64), 1)[0], 4).problem == "no edges that tell where to cut"


def test_scenes_that_touch_in_one_colour_are_cut_and_single_ones_seldom_are() -> None:
    """Nothing shows where uniform backgrounds meet, but an object of a single scene often lies there."""
    rng = random.Random(5)
    scenes = [[render(sample_scene(rng, style="clean")) for _ in range(4)] for _ in range(40)]
    grids = [read_grid(lay_out(tiles, 2, 2), 4).grid for tiles in scenes]
    assert sum(grid == Grid((64, 64)) for grid in grids) >= 36
    single = [read_grid(tiles[0], 4) for tiles in scenes]
    assert sum(reading.is_single for reading in single) >= 20
    assert sum(reading.is_certain for reading in single) <= 4, "single ones outnumber them in any folder"


@pytest.mark.parametrize("quality", [60, 75, 95])
@pytest.mark.parametrize(
    ("shape", "around"),
    [((2, 2), PADDED), ((1, 4), PADDED), ((2, 2), BARE), ((1, 4), BARE), ((2, 2), (4, 4, 30, 30, 30, 30))],
)
def test_jpegs_are_cut_at_the_same_lines(quality, shape, around) -> None:
    correct = 0
    for seed in range(10):
        tiles = photos(seed)
        image = jpeg(lay_out(tiles, *shape, around), quality)
        grid = read_grid(image, 4, lossy=True).grid
        if grid is not None:
            assert np.abs(np.subtract(grid.cut(image), tiles, dtype=float)).mean() < 14, (
                "never cut elsewhere"
            )
            correct += grid.fits(image, lossy=True)
    assert correct >= 9


def test_the_user_may_be_sure() -> None:
    (image,) = photos(6, 1)
    assert read_grid(image, 4, forced=(2, 2)).grid == Grid((32, 32))
    assert read_grid(image, 4, forced=(1, 4)).grid == Grid((16, 64), rows=1, columns=4)
    assert read_grid(image[:, :63], 4, forced=(2, 2)).problem == "cannot be cut, and shows no padding"
    padded = lay_out(photos(6), 2, 2, PADDED)
    assert read_grid(padded, 4, forced=(2, 2)).grid == Grid((64, 64), 2, border=True)
