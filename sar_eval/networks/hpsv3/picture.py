"""HPSv3's preprocessing: about 256 x 28 x 28 pixels in the picture's own ratio, as Qwen2-VL's patches.

After `smart_resize` and `fetch_image` in `hpsv3/dataset/utils.py` and Qwen2-VL's image processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.networks.clip_pixels import normalize

# Pixels of a patch; patches that are merged along a side; frames of a patch.
PATCH, MERGE, FRAMES = 14, 2, 2
FACTOR = PATCH * MERGE
PIXELS = 256 * FACTOR * FACTOR  # the target is both the least and the greatest number of pixels
MAX_RATIO = 200  # of the sides; the official code raises beyond it


def target_size(width: int, height: int) -> tuple[int, int]:
    """Width and height that a picture is resized to, multiples of 28.

    The rounding of Python's floats is part of the rule: 768x768 becomes 420x420, and not 448x448.

    Raises:
        BadInput: one side is over `MAX_RATIO` times the other.
    """
    if max(width, height) / min(width, height) > MAX_RATIO:
        raise BadInput(f"{width}x{height} pixels: one side is over {MAX_RATIO} times the other")
    wide, high = (max(FACTOR, round(side / FACTOR) * FACTOR) for side in (width, height))
    if wide * high > PIXELS:
        beta = math.sqrt((height * width) / PIXELS)
        wide, high = (math.floor(side / beta / FACTOR) * FACTOR for side in (width, height))
    elif wide * high < PIXELS:
        beta = math.sqrt(PIXELS / (height * width))
        wide, high = (math.ceil(side * beta / FACTOR) * FACTOR for side in (width, height))
    return wide, high


def resize(image: Image.Image) -> NDArray[np.uint8]:
    """A picture as the network reads it, uint8 `[H, W, 3]`: converted to RGB, then resized.

    Args:
        image: without EXIF rotation; alpha is dropped.

    Raises:
        BadInput: see `target_size`.
    """
    size = target_size(*image.size)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.array(rgb.resize(size, Image.Resampling.BICUBIC))


def cut_patches(picture: Tensor) -> Tensor:
    """Normalised patches, float32 `[H/14 * W/14, 3 * 2 * 14 * 14]`, of a resized picture uint8 `[H, W, 3]`.

    The patches of each square of 2 x 2, which the network merges, follow one another. A picture is a video
    of two equal frames.
    """
    colors = normalize(picture)
    down, across = (side // FACTOR for side in colors.shape[1:])
    squares = colors.reshape(3, down, MERGE, PATCH, across, MERGE, PATCH)
    by_patch = squares.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
    frames = by_patch.expand(-1, -1, -1, -1, -1, FRAMES, -1, -1)
    return frames.reshape(down * across * MERGE**2, -1)


def grid(pictures: Sequence[Tensor]) -> Tensor:
    """Frames, rows and columns of patches of each resized picture, `[B, 3]`."""
    return torch.tensor([[1, *(side // PATCH for side in picture.shape[:2])] for picture in pictures])
