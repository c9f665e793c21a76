"""Does this device compute the detector as a CPU in float32 does?

Cards were seen that run Mask2Former without an error and find less (geneval issue 14: newer cards with
old kernels). The same weights look at the same image twice, here and on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sar_eval.networks.mask2former.network import Mask2Former, prepare

TOLERANCE = 0.01  # relative; TF32 stays below it, a wrong kernel does not


@dataclass(frozen=True, slots=True)
class Comparison:
    """The greatest difference of class and mask logits, relative to the greatest logit."""

    classes: float
    masks: float

    @property
    def ok(self) -> bool:
        """Whether both are small enough to trust the device's verdicts."""
        return max(self.classes, self.masks) < TOLERANCE


def compare_devices(weights: Path, device: str, dtype: str = "float32") -> Comparison:
    """The detector's logits for one image on `device` against the CPU in float32."""
    image = [prepare(_image())]
    ours = Mask2Former(weights, device=device, dtype=dtype).logits(image)
    theirs = Mask2Former(weights).logits(image)
    return Comparison(*(_difference(a.cpu(), b) for a, b in zip(ours, theirs, strict=True)))


def _difference(found: Any, expected: Any) -> float:
    """NaN and infinity count as infinitely different."""
    worst = float((found - expected).abs().max() / expected.abs().max())
    return worst if np.isfinite(worst) else float("inf")


def _image(side: int = 256) -> NDArray[np.uint8]:
    """Soft blobs of colour, the same on every machine."""
    grid = torch.linspace(0, 3 * torch.pi, side)
    waves = [torch.sin(grid[:, None] * a + grid[None, :] * b) for a, b in ((1, 2), (2, -1), (0.5, 1.5))]
    pixels: NDArray[np.uint8] = (torch.stack(waves, -1) * 127 + 128).to(torch.uint8).numpy()
    return pixels
