"""Sizes of pictures: squares, buckets, what is cut off, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.tokenization.options import TokenizeOptions, check_columns, parse_length, parse_size
from sar_eval.tokenization.reasons import Refused
from sar_eval.tokenization.sizes import MAX_STRETCH, SizeRule, bucket_sizes, nearest


def rule(**options: object) -> SizeRule:
    return SizeRule(TokenizeOptions(**options), (8, 8))  # type: ignore[arg-type]


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows from left to right, green from top to bottom."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def levels(pixels: np.ndarray) -> list[int]:
    return pixels.tolist()  # approx would subtract bytes


def test_pictures_of_the_right_size_keep_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for options in ({}, {"size": (32, 32)}, {"size": (32, 32), "buckets": 8, "crop": "random"}):
        np.testing.assert_array_equal(rule(**options).fit(pixels, "k"), pixels)


def test_the_centre_is_kept_of_what_is_wider_or_taller() -> None:
    wide = rule(size=(32, 32)).fit(ramp(64, 128), "k")
    assert wide.shape == (32, 32, 3)
    assert levels(wide[16, [0, -1], 0]) == pytest.approx([66, 189], abs=4), (
        "a quarter is cut off at either side"
    )
    assert levels(wide[[0, -1], 16, 1]) == pytest.approx([0, 255], abs=6), "nothing above"
    tall = rule(size=(32, 32)).fit(ramp(128, 64), "k")
    assert levels(tall[[0, -1], 16, 1]) == pytest.approx([66, 189], abs=4)


def test_random_crops_are_a_function_of_seed_and_key() -> None:
    pixels = ramp(64, 256)
    lefts = {
        (seed, key): int(rule(size=(32, 32), crop="random", seed=seed).fit(pixels, key)[16, 0, 0])
        for seed in (0, 1)
        for key in ("a", "b", "c")
    }
    assert len(set(lefts.values())) > 3
    again = rule(size=(32, 32), crop="random", seed=1).fit(pixels, "b")
    assert int(again[16, 0, 0]) == lefts[1, "b"]


def test_without_cropping_a_picture_is_stretched_a_little_or_refused() -> None:
    whole = rule(size=(32, 32), crop="none").fit(ramp(64, 68), "k")
    assert levels(whole[16, [0, -1], 0]) == pytest.approx([0, 255], abs=6)
    with pytest.raises(Refused, match="aspect_ratio"):
        rule(size=(32, 32), crop="none").fit(ramp(64, int(64 * MAX_STRETCH) + 2), "k")


SIDES = st.integers(1, 128).map(lambda tokens: 8 * tokens)


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(SIDES, SIDES),
    SIDES,
    st.one_of(st.just(1.0), st.floats(1, 4)),
)
def test_every_picture_gets_a_bucket(
    picture: tuple[int, int], size: tuple[int, int], step: int, aspect: float
) -> None:
    assume(step**2 <= math.prod(size))
    options = TokenizeOptions(size=size, buckets=step, max_aspect=aspect)
    target = SizeRule(options, (8, 8)).target(picture)
    assert all(side % step == 0 and side > 0 for side in target)
    assert math.prod(target) <= math.prod(size)
    assert max(target) <= aspect * min(target)


def test_squares_are_buckets_of_any_area() -> None:
    assert bucket_sizes(512 * 768, 64, 1.0) == ((576, 576),)
    assert bucket_sizes(640 * 640, 256, 1.2) == ((512, 512),)


def test_buckets_hold_as_many_pixels_as_they_may() -> None:
    found = bucket_sizes(256 * 256, 64, 2.0)
    assert found == ((192, 320), (256, 256), (320, 192))
    assert nearest((300, 301), found) == (256, 256)
    assert nearest((1080, 1920), found) == (192, 320)
    assert rule(size=(256, 256), buckets=64).target((1920, 1080)) == (320, 192)


@pytest.mark.parametrize(
    ("size", "options", "reason"),
    [((31, 64), {"min_side": 32, "size": (32, 32)}, "too_small"), ((30, 32), {}, "does_not_fit")],
)
def test_what_has_no_size(size: tuple[int, int], options: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        rule(**options).target(size)
    assert refused.value.reason == reason


def test_options_that_contradict_themselves() -> None:
    for options, word in (
        ({"crop": "left"}, "--crop"),
        ({"buckets": 16}, "needs --size"),
        ({"size": (32, 32), "buckets": 64}, "not even one square"),
        ({"max_aspect": 0.5, "size": (32, 32), "buckets": 16}, "--max-aspect is 0.5"),
        ({"max_aspect": 3.0, "size": (32, 32)}, "--max-aspect needs --buckets"),
        ({"crop": "none"}, "--crop none needs --size"),
        ({"seed": 1, "size": (32, 32)}, "--seed is of --crop random"),
        ({"format": "zip"}, "--format"),
    ):
        with pytest.raises(BadInput, match=word):
            TokenizeOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"--size 500: .* height is a multiple of 16 pixels: 496 or 512"):
        TokenizeOptions(size=(500, 500)).check_patch(16, 16)
    with pytest.raises(BadInput, match="--buckets 24"):
        TokenizeOptions(size=(512, 512), buckets=24).check_patch(16, 16)
    TokenizeOptions(size=(24, 48)).check_patch(8, 16)
    for options, word in (
        ({"size": (48, 24)}, r"--size 24: .* width is a multiple of 16 pixels: 16 or 32"),
        ({"size": (64, 64), "buckets": 8}, "--buckets 8: .* 16"),
    ):
        with pytest.raises(BadInput, match=word):
            TokenizeOptions(**options).check_patch(8, 16)  # type: ignore[arg-type]


def test_sizes_and_lengths_as_text() -> None:
    assert (parse_size(""), parse_size("512"), parse_size("256x384")) == (None, (512, 512), (256, 384))
    assert (parse_length(""), parse_length("3:")) == ((1, 65_536), (3, 65_536))
    assert parse_length(":500") == (1, 500)
    for text in ("0", "512x", "x", "-1", "99999", "5 12"):
        with pytest.raises(BadInput, match="--size"):
            parse_size(text)
    for text in ("3", "9:3", "a:b", "-1:5", "1:65537"):
        with pytest.raises(BadInput, match="--caption-length"):
            parse_length(text)
    with pytest.raises(BadInput, match="--caption-column"):
        check_columns(["a", "a"])
