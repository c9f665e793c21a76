"""CLIP's input from pictures of every mode and shape; tests/golden compares pixels with official ones."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision", reason="needs the extra geneval")
from torchvision import transforms as v

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks.clip import transforms

SIZE = 32
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
SHAPES = ((1, 1), (1, 300), (300, 1), (32, 32), (32, 20), (31, 33), (400, 50))


def _picture(mode: str, shape: tuple[int, int]) -> Picture:
    noise = np.random.default_rng(0).integers(0, 255, (shape[1], shape[0], 3), np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG" if mode == "CMYK" else "PNG")
    return Picture.from_bytes(file.getvalue())


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_shape_gives_finite_pixels(mode) -> None:
    for shape in SHAPES:
        picture = _picture(mode, shape)
        for name, transform in transforms.TRANSFORMS.items():
            pixels = transform(picture, SIZE)
            assert (pixels.shape, pixels.dtype) == ((3, SIZE, SIZE), torch.float32), (name, shape)
            assert bool(pixels.isfinite().all()), (name, shape)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", transforms.TRANSFORMS)
def test_a_palette_with_transparent_colours_is_no_warning(name) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes(range(64)))
    picture = Picture.from_bytes(file.getvalue())
    assert picture.image.mode == "P"
    assert bool(transforms.TRANSFORMS[name](picture, SIZE).isfinite().all())


def test_torchvisions_own_transform_gives_the_same() -> None:
    """Of the modes that it takes, as `clip.load` and open_clip compose it, but for RGB last."""
    theirs = v.Compose(
        [
            v.Resize(SIZE, v.InterpolationMode.BICUBIC),
            v.CenterCrop(SIZE),
            lambda image: image.convert("RGB"),
            v.ToTensor(),
            v.Normalize(transforms.MEAN, transforms.STD),
        ]
    )
    for mode in ("L", "LA", "P", "RGB", "RGBA", "CMYK"):
        for shape in SHAPES:
            picture = _picture(mode, shape)
            assert torch.equal(transforms.openai_pixels(picture, SIZE), theirs(picture.image)), (
                mode,
                shape,
            )


@pytest.mark.parametrize("name", ["openai", "hf", "hf-torchvision"])
def test_what_is_too_narrow_is_refused_before_it_takes_memory(name) -> None:
    picture = Picture.from_pixels(np.zeros((1, 8000, 3), np.uint8))
    with pytest.raises(BadInput, match="8000x1 pixels: too narrow"):
        transforms.TRANSFORMS[name](picture, 224)
    narrow = transforms.hps_pixels(picture, 224)  # whose sides only shrink, to one pixel at least
    assert int((narrow != narrow[:, :1, :1]).any(0).any(1).sum()) <= 1


def test_an_8000_pixel_picture_is_resized_a_channel_at_a_time() -> None:
    pixels = np.zeros((8000, 500, 3), np.uint8)
    pixels[:, 250:] = (10, 120, 240)
    small = transforms.hps_pixels(Picture.from_pixels(pixels), 224)
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    resized = torch.nn.functional.interpolate(
        whole, (224, 14), mode="bicubic", align_corners=False, antialias=True
    )[0]
    assert torch.equal(small[:, :, 105:119], transforms._normalize(resized))


def test_half_a_remainder_is_cropped_by_each_librarys_rule() -> None:
    """A width of 35 leaves 3: torchvision rounds 1.5 to 2, Hugging Face to 1."""
    picture = Picture.from_pixels(np.tile(np.arange(35, dtype=np.uint8)[None, :, None] * 7, (SIZE, 1, 3)))
    shifted = transforms.openai_pixels(picture, SIZE)[:, :, :-1]
    assert torch.allclose(transforms.hf_pixels(picture, SIZE)[:, :, 1:], shifted, atol=1e-6)


def test_simplears_squash_of_a_stored_picture() -> None:
    """From -1 to 1 and back is the picture again: its bytes, squashed, bilinear, without antialiasing."""
    picture = _picture("RGB", (90, 50))
    rgb = torch.from_numpy(np.array(picture.rgb)).permute(2, 0, 1)[None].float() / 255
    squashed = torch.nn.functional.interpolate(rgb, (SIZE, SIZE), mode="bilinear", align_corners=False)[0]
    exact = transforms.TRANSFORMS["simplear-float32"](picture, SIZE)
    assert torch.allclose(exact, transforms._normalize(squashed), atol=1e-5)
    rounded = transforms.TRANSFORMS["simplear-bfloat16"](picture, SIZE)
    assert 1e-3 < (rounded - exact).abs().max() < 0.1
