"""ImageReward's preprocessing: `_transform` of image-reward 1.5, which is OpenAI CLIP's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.errors import BadInput

MAX_RATIO = 1000  # of the sides: the official code would resize the longer one to 224,000 and more


def crop_square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Resize the short side, crop the centre, and only then convert to RGB: uint8 `[side, side, 3]`.

    The order is part of the score: Pillow resizes palette pictures by the nearest pixel, and those with
    transparency as premultiplied alpha. The long side is cut to whole pixels, and the crop's offset is
    rounded half to even, as torchvision does.

    Args:
        image: as stored in its file: in its own mode, without EXIF rotation.
        side: of the square.

    Raises:
        BadInput: a picture more than `MAX_RATIO` times as long as wide.
    """
    short, long = sorted(image.size)
    if long > MAX_RATIO * short:
        raise BadInput(f"{image.width}x{image.height} pixels: one side is over {MAX_RATIO} times the other")
    width, height = (side if edge == short else int(side * edge / short) for edge in image.size)
    left, top = (round((edge - side) / 2) for edge in (width, height))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + side, top + side)).convert("RGB"))
