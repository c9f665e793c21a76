"""Colour statistics of CLIP's training pictures, by which many networks normalise."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalize(pictures: Tensor) -> Tensor:
    """Normalised float32 `[..., 3, H, W]` of RGB uint8 `[..., H, W, 3]`."""
    colors = pictures.movedim(-1, -3).float() / 255
    mean, std = (torch.tensor(values, device=colors.device).view(3, 1, 1) for values in (MEAN, STD))
    return (colors - mean) / std
