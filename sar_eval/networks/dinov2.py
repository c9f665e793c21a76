"""DINOv2's feature vectors of pictures, as dgm-eval takes them for FD-DINOv2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sar_eval.discover import need
from sar_eval.errors import BadInput

SIZE = 224  # dgm-eval's, whatever the network was trained with
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
OFFSET = 0.1  # see `position_grid`
Rgb = tuple[float, float, float]


def prepare(image: Image.Image) -> Tensor:
    """Float32 `[3, 224, 224]` of an RGB picture, squashed by Pillow's bicubic filter."""
    return normalized(image, SIZE, MEAN, STD)


def normalized(image: Image.Image, size: int, mean: Rgb, std: Rgb) -> Tensor:
    """Float32 `[3, size, size]`: Pillow's bicubic filter to whole levels, then mean and deviation."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


class Dinov2(nn.Module):
    """From prepared pictures `[N, 3, 224, 224]` to class tokens `[N, D]`, not normalised."""

    def __init__(self, folder: Path) -> None:
        """Load a folder of transformers.

        Raises:
            BadInput: no such folder, unreadable, or no DINOv2.
            MissingExtra: transformers is not installed.
        """
        super().__init__()
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder of DINOv2 (config.json and model.safetensors)")
        self.model = _load(folder)
        embeddings = self.model.embeddings
        grid = position_grid(embeddings.position_embeddings.detach(), SIZE // self.model.config.patch_size)
        embeddings.position_embeddings = nn.Parameter(grid, requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The features."""
        return self.model(pixel_values=pixels).last_hidden_state[:, 0]  # type: ignore[no-any-return]


def position_grid(positions: Tensor, cells: int) -> Tensor:
    """Position embeddings `[1, 1 + N, D]` for a grid of `cells` by `cells`.

    DINOv2's own code (`interpolate_offset = 0.1`) stretches the grid by (cells + 0.1) / sqrt(N), that of
    transformers by cells / sqrt(N): positions are sampled elsewhere, and features differ. dgm-eval runs
    DINOv2's code.
    """
    side = int((positions.shape[1] - 1) ** 0.5)
    if side == cells:
        return positions
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (cells + OFFSET) / side
    stretched = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], stretched.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _load(folder: Path) -> Any:
    transformers = need("transformers", extra="scorers", what="FD-DINOv2")
    transformers.utils.logging.disable_progress_bar()
    options = {"dtype": torch.float32, "output_loading_info": True, "local_files_only": True}
    try:
        model, info = transformers.Dinov2Model.from_pretrained(folder, **options)
    except Exception as error:  # transformers and the libraries below it raise errors of many types
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"transformers cannot load {folder} as DINOv2: {first}") from error
    # transformers initialises missing weights at random, with only a warning.
    if missing := sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]})):
        raise BadInput(f"{folder} is no DINOv2: it lacks {missing[0]} (and {len(missing) - 1} more)")
    return model.eval().requires_grad_(False)
