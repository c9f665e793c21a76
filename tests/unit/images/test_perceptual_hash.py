"""The perceptual hash is ImageHash's, in integers; the digest is of the exact pixels."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sar_eval.images.perceptual_hash import hash_distance, perceptual_hash, pixel_digest


def _scene(seed: int, side: int = 256) -> NDArray[np.uint8]:
    """A few coloured discs and boxes over a gradient."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 190, side)[:, None, None] * rng.uniform(0.5, 1, 3)
    image = Image.fromarray(np.broadcast_to(ramp, (side, side, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle) * 3:
        corner = rng.integers(0, side * 3 // 4, 2)
        ends = corner + rng.integers(side // 8, side // 3, 2)
        shape((*corner.tolist(), *ends.tolist()), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return np.asarray(image)


def _as_imagehash_does(pixels: NDArray[np.uint8]) -> int:
    """`imagehash.phash` of ImageHash 4.3, in floating point."""
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS))
    n = np.arange(32)
    dct = 2 * np.cos(np.pi * n[:, None] * (2 * n + 1) / 64)
    low = (dct @ grey.astype(float) @ dct.T)[:8, :8]
    return int("".join("01"[bit] for bit in (low > np.median(low)).ravel().astype(int)), 2)


def test_it_is_the_hash_of_imagehash() -> None:
    for seed in range(50):
        assert perceptual_hash(_scene(seed)) == _as_imagehash_does(_scene(seed)), seed


def test_it_does_not_change() -> None:
    """Sets that exist are compared with sets to come."""
    assert f"{perceptual_hash(_scene(0)):016x}" == "d870f80ef31f0719"


@pytest.mark.parametrize("side", [32, 100, 512])
def test_near_duplicates_are_near_and_others_far(side: int) -> None:
    scene, other = _scene(1), _scene(2)
    smaller = np.asarray(Image.fromarray(scene).resize((side, side), Image.Resampling.BICUBIC))
    buffer = io.BytesIO()
    Image.fromarray(smaller).save(buffer, "JPEG", quality=75)
    copy = np.asarray(Image.open(buffer))
    assert hash_distance(perceptual_hash(scene), perceptual_hash(copy)) <= 3
    assert hash_distance(perceptual_hash(scene), perceptual_hash(other)) > 12


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (1, 1 << 63), (255, 1 << 63)])
def test_a_flat_picture_has_no_noise(level: int, expected: int) -> None:
    assert perceptual_hash(np.full((48, 64, 3), level, np.uint8)) == expected


def test_the_digest_is_of_size_and_pixels() -> None:
    pixels = _scene(3, 64)
    changed = pixels.copy()
    changed[5, 7, 1] ^= 1
    assert len(pixel_digest(pixels)) == 16
    assert pixel_digest(pixels) == pixel_digest(np.asfortranarray(pixels))
    assert len({pixel_digest(pixels), pixel_digest(changed), pixel_digest(pixels.reshape(32, 128, 3))}) == 3
