"""How each form of FID brings a picture to Inception's 299 x 299: the same set has another FID under each.

All take an RGB picture and give float32 `[3, 299, 299]`, normalised to about [-1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SIZE = 299
Pixels = NDArray[np.float32]


def clean(image: Image.Image) -> Tensor:
    """clean-fid's `clean`: Pillow's bicubic filter (antialiased), each channel in floats, no rounding."""
    return _scaled(np.stack([_pillow(channel) for channel in image.split()]))


def torch_bilinear(image: Image.Image) -> Tensor:
    """pytorch-fid's: bilinear without antialiasing, so that a large picture is sampled, not averaged."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    return 2 * F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", align_corners=False)[0] - 1


def tensorflow_bilinear(image: Image.Image) -> Tensor:
    """TensorFlow 1's, inside the original's graph: bilinear, not antialiased, pixel centres not aligned.

    Position i of the output is i * size / 299 of the input (torch-fidelity's
    `interpolate_bilinear_2d_like_tensorflow1x`, in the same order of operations).
    """
    pixels = np.asarray(image)
    (top, bottom, down), (left, right, across) = (_positions(size) for size in pixels.shape[:2])
    rows = pixels[top], pixels[bottom]
    upper, lower = (_mix(row[:, left], row[:, right], across[:, None]) for row in rows)
    return _scaled(_mix(upper, lower, down[:, None, None]).transpose(2, 0, 1))


def _pillow(channel: Image.Image) -> Pixels:
    resized = channel.convert("F").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(resized).clip(0, 255)


def _positions(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Pixels]:
    """Of each output pixel, the input pixels before and after, and how far it is between them."""
    at = np.arange(SIZE, dtype=np.float32) * np.float32(size / SIZE)
    before = at.astype(np.int64)
    return before, np.minimum(before + 1, size - 1), at - before.astype(np.float32)


def _mix(before: NDArray[np.uint8] | Pixels, after: NDArray[np.uint8] | Pixels, share: Pixels) -> Pixels:
    start = before.astype(np.float32)
    return start + (after.astype(np.float32) - start) * share


def _scaled(levels: Pixels) -> Tensor:
    return torch.from_numpy((levels - np.float32(128)) / np.float32(128))
