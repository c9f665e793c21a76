"""2x2 grids: detected, cut to the pixel, and distinguished from single images."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sar_eval.images.grid_detection import count_uniform_lines, detect_grid, looks_single, read_grid
from sar_eval.images.grids import Grid, join_tiles

SIDES = st.tuples(st.integers(12, 40), st.integers(12, 40))
SEEDS = st.integers(0, 2**32 - 1)


def noise(seed: int, size: tuple[int, int], number: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (number, size[1], size[0], 3), np.uint8))


def photo(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A smooth image with a little noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def make_grid(tiles: list[np.ndarray], padding: int = 0, value: int = 0, border: bool = True):
    """As torchvision's `make_grid(tiles, nrow=2, padding, pad_value)` lays them out."""
    height, width = tiles[0].shape[:2]
    edge = padding if border else 0
    shape = (2 * height + padding + 2 * edge, 2 * width + padding + 2 * edge, 3)
    grid = np.full(shape, value, np.uint8)
    for number, tile in enumerate(tiles):
        y = edge + number // 2 * (height + padding)
        x = edge + number % 2 * (width + padding)
        grid[y : y + height, x : x + width] = tile
    return grid


def encoded(pixels: np.ndarray, image_format: str, **options) -> np.ndarray:
    """The image after encoding and decoding."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


@settings(max_examples=150, deadline=None)
@given(SEEDS, SIDES, st.integers(1, 8), st.integers(0, 255), st.booleans())
def test_padded_grids_are_detected_and_cut_to_the_pixel(seed, size, padding, value, border) -> None:
    tiles = noise(seed, size)
    pixels = encoded(make_grid(tiles, padding, value, border), "PNG")
    grid = detect_grid(pixels)
    assert grid == Grid(size, padding, border)
    assert grid.fits(pixels)
    assert grid.size == (pixels.shape[1], pixels.shape[0])
    np.testing.assert_array_equal(grid.cut(pixels), tiles)


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIDES)
def test_grids_without_padding_are_cut_in_the_middle(seed, size) -> None:
    tiles = noise(seed, size)
    pixels = encoded(join_tiles(tiles), "PNG")
    np.testing.assert_array_equal(pixels, make_grid(tiles))
    assert detect_grid(pixels) == Grid(size)
    np.testing.assert_array_equal(Grid(size).cut(pixels), tiles)


@pytest.mark.parametrize("quality", [50, 60, 75, 90, 95])
@pytest.mark.parametrize("padding", [1, 2, 4, 8])
def test_padding_is_detected_after_jpeg(quality, padding) -> None:
    """One line of padding is missed in about one of 300 images; for a folder most files decide."""
    rng, correct = np.random.default_rng(quality), 0
    for number in range(40):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        tiles, border = [photo(rng, size) for _ in range(4)], bool(number % 2)
        grid = make_grid(tiles, padding, (0, 128, 255)[number % 3], border)
        pixels = encoded(grid, "JPEG", quality=quality, subsampling=("4:4:4", "4:2:0")[number // 2 % 2])
        expected = Grid(size, padding, border)
        correct += detect_grid(pixels, lossy=True) == expected and expected.fits(pixels, lossy=True)
        # After a correct cut the only difference is JPEG's, as in the whole image.
        error = np.abs(np.subtract(expected.cut(pixels), tiles, dtype=np.float64)).mean()
        assert error <= 2 * np.abs(np.subtract(pixels, grid, dtype=np.float64)).mean()
    assert correct >= (39 if padding == 1 else 40)


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_grids_without_padding_have_none(quality: int) -> None:
    rng = np.random.default_rng(quality)
    for _ in range(40):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        pixels = encoded(join_tiles([photo(rng, size) for _ in range(4)]), "JPEG", quality=quality)
        assert detect_grid(pixels, lossy=True) == Grid(size)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 6), st.integers(1, 9), st.sampled_from([0, 255]))
def test_uniform_margins_of_the_images_are_not_padding(seed, padding, margin, value) -> None:
    """Tiles with margins of the padding's colour, like night skies and white backgrounds."""
    tiles = [
        np.pad(t, ((margin,) * 2,) * 2 + ((0, 0),), constant_values=value) for t in noise(seed, (20, 16))
    ]
    grid = detect_grid(make_grid(tiles, padding, value))
    assert grid == Grid((20 + 2 * margin, 16 + 2 * margin), padding, padding > 0)


def test_padding_may_have_any_colour() -> None:
    tiles = noise(1, (20, 20))
    pixels = make_grid(tiles, 2)
    pixels[(pixels == 0).all(-1)] = (138, 44, 250)
    assert detect_grid(pixels) == read_grid(pixels, 4).grid == Grid((20, 20), 2, border=True)


@pytest.mark.parametrize("size", [(31, 40), (40, 31), (31, 31)])
def test_an_odd_side_without_padding_cannot_be_cut(size) -> None:
    (pixels,) = noise(2, size, 1)
    assert detect_grid(pixels) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 3), (3, 3, 3), (2, 9, 3), (40, 40, 3), (41, 41, 3)])
def test_tiny_and_uniform_images_have_no_padding(shape) -> None:
    pixels = np.zeros(shape, np.uint8)
    grid = detect_grid(pixels)
    assert (grid is None) == bool(shape[0] % 2 or shape[1] % 2)
    assert grid is None or (grid.padding, grid.fits(pixels)) == (0, True)
    assert not looks_single(pixels)


def test_another_size_or_no_padding_does_not_fit() -> None:
    (single,) = noise(3, (46, 46), 1)
    grid = Grid((20, 20), 2, border=True)
    assert not grid.fits(single)
    assert not grid.fits(single[:-2])
    assert not grid.fits(make_grid(noise(3, (20, 20)), 6, border=False))
    assert grid.fits(make_grid(noise(3, (20, 20)), 2))
    assert count_uniform_lines(single) == (0, 0)


def test_a_grid_has_an_edge_in_its_middle_and_a_single_image_has_none() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        single, tiles = photo(rng, (96, 96)), [photo(rng, (48, 48)) for _ in range(4)]
        for image_format, options in (("PNG", {}), ("JPEG", {"quality": 75})):
            assert looks_single(encoded(single, image_format, **options))
            assert not looks_single(encoded(join_tiles(tiles), image_format, **options))


def test_the_text_of_a_grid() -> None:
    assert str(Grid((512, 512), 2, border=True)) == "2 px padding and border, 512x512"
    assert str(Grid((512, 256), 2)) == "2 px padding, 512x256"
    assert str(Grid((512, 512))) == "no padding, 512x512"
