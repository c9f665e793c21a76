"""How pictures become CLIP's input. Five rules are in use, and each moves scores measurably.

All give float32 `[3, size, size]`, normalised with CLIP's mean and deviation. What differs: whether a
picture is converted to RGB before or after it is resized, on bytes or floats, with or without antialiasing,
and how an odd remainder is cropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture, to_rgb
from sar_eval.networks.clip_pixels import MEAN, STD

MAX_RESIZED = 2**26  # pixels: a picture 1 pixel high would be scaled to a short side of 224


def openai_square(image: Image.Image, size: int) -> Image.Image:
    """The middle square as `clip.load`'s transform cuts it: resized and cropped as stored, RGB last.

    So Pillow resizes a palette picture with nearest neighbours, alpha premultiplied, CMYK as CMYK. Half a
    remainder is rounded to even (torchvision's CenterCrop). ImageReward does the same.

    Raises:
        BadInput: too long and narrow.
    """
    resized = _short_side(image, size)
    left, top = (round((side - size) / 2) for side in resized.size)
    return to_rgb(resized.crop((left, top, left + size, top + size)))


def openai_pixels(picture: Picture, size: int) -> Tensor:
    """As `clip.load`'s transform; see `openai_square`."""
    return _normalize(_to_tensor(openai_square(picture.image, size)))


def hf_pixels(picture: Picture, size: int) -> Tensor:
    """As Hugging Face's Pillow processor of CLIP: RGB first; half a remainder is rounded down."""
    image = _short_side(picture.rgb, size)
    left, top = ((side - size) // 2 for side in image.size)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    scaled = (pixels * (1 / 255)).astype(np.float32)
    normalized = (scaled - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normalized).permute(2, 0, 1).contiguous()


def hf_torchvision_pixels(picture: Picture, size: int) -> Tensor:
    """As the processor that is transformers 5's default: torchvision resizes bytes, else as `hf_pixels`."""
    tv: Any = need("torchvision.transforms.v2.functional", extra="scorers", what="this processor")
    height, width = _short_side_sizes(picture.rgb.size, size)[::-1]
    pixels = _bytes(picture.rgb)
    resized = tv.resize(pixels, [height, width], tv.InterpolationMode.BICUBIC, antialias=True)
    top, left = (height - size) // 2, (width - size) // 2
    cropped: Tensor = resized[:, top : top + size, left : left + size].float()
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (MEAN, STD))
    return (cropped - mean) / std


def hps_pixels(picture: Picture, size: int, *, antialias: bool = True) -> Tensor:
    """As HPSv2: the longest side is resized on floats, bicubic, then the picture is padded with black.

    Nothing is clamped or rounded to bytes: bicubic overshoot reaches the network. Sides are rounded half to
    even. Where the longest side has its length already, the official code neither resizes nor pads, and
    fails unless the picture is square; here it is padded.

    Args:
        picture: any; it is converted to RGB first.
        size: the longest side.
        antialias: torchvision's default for tensors since 0.17; the network was tuned before that.
    """
    pixels = _bytes(picture.rgb)
    scale = size / max(pixels.shape[1:])
    height, width = (max(round(side * scale), 1) for side in pixels.shape[1:])
    resized = torch.stack([_bicubic(channel, (height, width), antialias) for channel in pixels])
    left, top = (size - width) // 2, (size - height) // 2
    padded = F.pad(resized, (left, size - width - left, top, size - height - top))
    return _normalize(padded)


def simplear_pixels(decoded: Tensor, size: int) -> Tensor:
    """As SimpleAR's trainer: the decoder's output squashed to a square, bilinear, not antialiased.

    Args:
        decoded: `[3, H, W]`, about -1 to 1, in the decoder's dtype: the official one is bfloat16, which is
            kept up to the subtraction of the mean (`simpar/train/llava_trainer_grpo.py`).
        size: of the square.
    """
    wide = decoded[None].float()  # sums are accumulated in float32, as on a GPU
    squashed = F.interpolate(wide, (size, size), mode="bilinear", align_corners=False)[0].to(decoded.dtype)
    levels = (255 * (squashed / 2 + 0.5)).clamp(0, 255)
    return _normalize(levels / 255)


def decoder_output(picture: Picture, dtype: str) -> Tensor:
    """`[3, H, W]` from -1 to 1: what a decoder gave, as far as bytes hold it."""
    return (_bytes(picture.rgb).float() / 127.5 - 1).to(getattr(torch, dtype))


# By name; each takes a picture and the size, and gives float32 `[3, size, size]`.
TRANSFORMS: dict[str, Callable[[Picture, int], Tensor]] = {
    "openai": openai_pixels,
    "hf": hf_pixels,
    "hf-torchvision": hf_torchvision_pixels,
    "hps-antialias": hps_pixels,
    "hps-aliased": partial(hps_pixels, antialias=False),
    "simplear-float32": lambda picture, size: simplear_pixels(decoder_output(picture, "float32"), size),
    "simplear-bfloat16": lambda picture, size: simplear_pixels(decoder_output(picture, "bfloat16"), size),
}


def _short_side(image: Image.Image, size: int) -> Image.Image:
    """Bicubic, in the image's own mode."""
    return image.resize(_short_side_sizes(image.size, size), Image.Resampling.BICUBIC)


def _short_side_sizes(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """Width and height with the short side `size`, the long one truncated.

    Raises:
        BadInput: too long and narrow.
    """
    short, long = min(sides), max(sides)
    scaled = int(size * long / short)
    if size * scaled > MAX_RESIZED:
        raise BadInput(f"{sides[0]}x{sides[1]} pixels: too narrow to be scaled to a short side of {size}")
    return (size, scaled) if sides[0] <= sides[1] else (scaled, size)


def _bicubic(channel: Tensor, sides: tuple[int, int], antialias: bool) -> Tensor:
    """Bytes `[H, W]` to floats, 0 to 1 but for overshoot; a channel at a time takes less memory."""
    scaled = channel.float().div(255)[None, None]
    if channel.shape == sides:
        return scaled[0, 0]
    return F.interpolate(scaled, sides, mode="bicubic", align_corners=False, antialias=antialias)[0, 0]


def _bytes(image: Image.Image) -> Tensor:
    """Uint8 `[3, H, W]` of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _to_tensor(image: Image.Image) -> Tensor:
    return _bytes(image).float().div(255)


def _normalize(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std
