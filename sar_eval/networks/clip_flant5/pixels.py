"""Pictures as CLIP-FlanT5's tower reads them: padded to a square, resized, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sar_eval.documents import read_json
from sar_eval.errors import BadInput
from sar_eval.networks.clip_pixels import MEAN, STD

CONFIG = "preprocessor_config.json"
MAX_SIDE = 16_384  # of the square: of a picture of one row it would have billions of pixels


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the tower's `preprocessor_config.json` says.

    Attributes:
        size: side of the square in pixels.
        mean, std: of red, green and blue, for values from 0 to 1.
    """

    size: int = 336
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def to_pixels(self, image: Image.Image) -> Tensor:
        """An RGB image as float32 `[3, size, size]`.

        Raises:
            BadInput: the picture is so long and narrow that its square would fill the memory.
        """
        square = self.to_square(image).resize((self.size, self.size), Image.Resampling.BICUBIC)
        # In the official order: float64 until the values lie between 0 and 1.
        values = (np.asarray(square, np.float64) * (1 / 255)).astype(np.float32)
        normalised = (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(normalised.transpose(2, 0, 1).copy())

    def to_square(self, image: Image.Image) -> Image.Image:
        """The image in the middle of a square of the mean colour, rounded down: (122, 116, 104)."""
        width, height = image.size
        if width == height:
            return image
        if (side := max(width, height)) > MAX_SIDE:
            raise BadInput(f"{width} x {height} pixels: vqascore pads to a square, of at most {MAX_SIDE:,}")
        square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in self.mean))
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        return square


def read_preprocessing(folder: Path) -> Preprocessing:
    """The preprocessing of a tower's folder.

    Raises:
        BadInput: another kind of resizing than CLIP's, or values of another kind.
    """
    path = folder / CONFIG
    if not path.is_file():
        return Preprocessing()
    config = read_json(path)
    try:
        size = config["size"]
        size = size if isinstance(size, int) else size["shortest_edge"]
        mean, std = ([float(value) for value in config[name]] for name in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is no preprocessing of CLIP's: {error}") from error
    if config.get("resample", 3) != 3 or not isinstance(size, int) or not len(mean) == len(std) == 3:
        raise BadInput(f"{path}: CLIP-FlanT5's tower resizes by bicubic interpolation to one side")
    return Preprocessing(size, tuple(mean), tuple(std))
