"""Compares the detector's logits on a device with those on the CPU in float32.

On some cards Mask2Former runs without an error and detects fewer objects (geneval issue 14: newer cards
with old kernels).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sar_eval.networks.mask2former.network import Mask2Former, prepare

TOLERANCE = 0.01  # relative; TF32 stays below it, a wrong kernel does not


@dataclass(frozen=True, slots=True)
class Comparison:
    """The largest difference of class and mask logits, relative to the largest logit."""

    classes: float
    masks: float

    @property
    def ok(self) -> bool:
        """Whether both differences are within `TOLERANCE`."""
        return max(self.classes, self.masks) < TOLERANCE


def compare_devices(weights: Path, device: str, dtype: str = "float32") -> Comparison:
    """The detector's logits for one image on `device` against the CPU in float32."""
    image = [prepare(_test_image())]
    actual = Mask2Former(weights, device=device, dtype=dtype).logits(image)
    expected = Mask2Former(weights).logits(image)
    return Comparison(*(_relative_error(a.cpu(), e) for a, e in zip(actual, expected, strict=True)))


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    """Infinity where a value is NaN or infinite."""
    error = float((actual - expected).abs().max() / expected.abs().max())
    return error if np.isfinite(error) else float("inf")


def _test_image(side: int = 256) -> NDArray[np.uint8]:
    """Smooth coloured waves, the same on every machine."""
    grid = torch.linspace(0, 3 * torch.pi, side)
    waves = [torch.sin(grid[:, None] * a + grid[None, :] * b) for a, b in ((1, 2), (2, -1), (0.5, 1.5))]
    pixels: NDArray[np.uint8] = (torch.stack(waves, -1) * 127 + 128).to(torch.uint8).numpy()
    return pixels
