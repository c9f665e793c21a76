"""2x2 grids: found, cut to the pixel, and told from single images."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sar_eval.images.grids import Grid, detect_grid, join, looks_single, plain_lines

SIDES = st.tuples(st.integers(12, 40), st.integers(12, 40))
SEEDS = st.integers(0, 2**32 - 1)


def noise(seed: int, size: tuple[int, int], number: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (number, size[1], size[0], 3), np.uint8))


def photo(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Colours that run into each other, with a little grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def put_together(tiles: list[np.ndarray], padding: int = 0, value: int = 0, around: bool = True):
    """As torchvision's `make_grid(tiles, nrow=2, padding, pad_value)` lays them out."""
    height, width = tiles[0].shape[:2]
    edge = padding if around else 0
    shape = (2 * height + padding + 2 * edge, 2 * width + padding + 2 * edge, 3)
    grid = np.full(shape, value, np.uint8)
    for number, tile in enumerate(tiles):
        y = edge + number // 2 * (height + padding)
        x = edge + number % 2 * (width + padding)
        grid[y : y + height, x : x + width] = tile
    return grid


def through(pixels: np.ndarray, form: str, **options) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return np.asarray(Image.open(buffer).convert("RGB"))


@settings(max_examples=150, deadline=None)
@given(SEEDS, SIDES, st.integers(1, 8), st.integers(0, 255), st.booleans())
def test_padded_grids_are_found_and_cut_to_the_pixel(seed, size, padding, value, around) -> None:
    tiles = noise(seed, size)
    pixels = through(put_together(tiles, padding, value, around), "PNG")
    found = detect_grid(pixels)
    assert found == Grid(size, padding, around)
    assert found.fits(pixels)
    assert found.size == (pixels.shape[1], pixels.shape[0])
    np.testing.assert_array_equal(found.cut(pixels), tiles)


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIDES)
def test_grids_without_padding_are_cut_in_the_middle(seed, size) -> None:
    tiles = noise(seed, size)
    pixels = through(join(tiles), "PNG")
    np.testing.assert_array_equal(pixels, put_together(tiles))
    assert detect_grid(pixels) == Grid(size)
    np.testing.assert_array_equal(Grid(size).cut(pixels), tiles)


@pytest.mark.parametrize("quality", [50, 60, 75, 90, 95])
@pytest.mark.parametrize("padding", [1, 2, 4, 8])
def test_padding_is_found_through_the_noise_of_jpeg(quality, padding) -> None:
    """One line of padding drowns once in some 300 images; a folder goes by what most files show."""
    rng, right = np.random.default_rng(quality), 0
    for number in range(40):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        tiles, around = [photo(rng, size) for _ in range(4)], bool(number % 2)
        grid = put_together(tiles, padding, (0, 128, 255)[number % 3], around)
        pixels = through(grid, "JPEG", quality=quality, subsampling=("4:4:4", "4:2:0")[number // 2 % 2])
        expected = Grid(size, padding, around)
        right += detect_grid(pixels, lossy=True) == expected and expected.fits(pixels, lossy=True)
        # Cut where the tiles lie: what is left is JPEG's own error, as in the whole image.
        error = np.abs(np.subtract(expected.cut(pixels), tiles, dtype=np.float64)).mean()
        assert error <= 2 * np.abs(np.subtract(pixels, grid, dtype=np.float64)).mean()
    assert right >= (39 if padding == 1 else 40)


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_grids_without_padding_have_none(quality: int) -> None:
    rng = np.random.default_rng(quality)
    for _ in range(40):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        pixels = through(join([photo(rng, size) for _ in range(4)]), "JPEG", quality=quality)
        assert detect_grid(pixels, lossy=True) == Grid(size)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 6), st.integers(1, 9), st.sampled_from([0, 255]))
def test_plain_margins_of_the_images_are_not_taken_for_padding(seed, padding, margin, value) -> None:
    """Tiles framed in the padding's own colour, as night skies and white backgrounds are."""
    tiles = [
        np.pad(t, ((margin,) * 2,) * 2 + ((0, 0),), constant_values=value) for t in noise(seed, (20, 16))
    ]
    found = detect_grid(put_together(tiles, padding, value))
    assert found == Grid((20 + 2 * margin, 16 + 2 * margin), padding, padding > 0)


def test_a_padding_is_one_grey_value() -> None:
    tiles = noise(1, (20, 20))
    pixels = put_together(tiles, 2)
    pixels[(pixels == 0).all(-1)] = (138, 144, 150)
    assert detect_grid(pixels) == Grid((23, 23))


@pytest.mark.parametrize("size", [(31, 40), (40, 31), (31, 31)])
def test_what_has_an_odd_side_and_no_padding_cannot_be_cut(size) -> None:
    (pixels,) = noise(2, size, 1)
    assert detect_grid(pixels) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 3), (3, 3, 3), (2, 9, 3), (40, 40, 3), (41, 41, 3)])
def test_tiny_and_plain_images_do_no_harm(shape) -> None:
    pixels = np.zeros(shape, np.uint8)
    found = detect_grid(pixels)
    assert (found is None) == bool(shape[0] % 2 or shape[1] % 2)
    assert found is None or (found.padding, found.fits(pixels)) == (0, True)
    assert not looks_single(pixels)


def test_another_size_or_no_padding_does_not_fit() -> None:
    (single,) = noise(3, (46, 46), 1)
    grid = Grid((20, 20), 2, around=True)
    assert not grid.fits(single)
    assert not grid.fits(single[:-2])
    assert not grid.fits(put_together(noise(3, (20, 20)), 6, around=False))
    assert grid.fits(put_together(noise(3, (20, 20)), 2))
    assert plain_lines(single) == (0, 0)


def test_a_grid_has_an_edge_in_its_middle_and_a_single_image_has_none() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        single, tiles = photo(rng, (96, 96)), [photo(rng, (48, 48)) for _ in range(4)]
        for form, options in (("PNG", {}), ("JPEG", {"quality": 75})):
            assert looks_single(through(single, form, **options))
            assert not looks_single(through(join(tiles), form, **options))


def test_a_grid_says_what_it_is() -> None:
    assert str(Grid((512, 512), 2, around=True)) == "2 px padding and border, 512x512"
    assert str(Grid((512, 256), 2)) == "2 px padding, 512x256"
    assert str(Grid((512, 512))) == "no padding, 512x512"
