"""LAION's two aesthetic predictors: heads on CLIP ViT-L/14's unit image vector.

v1 is one linear layer (LAION-AI/aesthetic-predictor), v2 five of them with nothing but dropout between
(christophschuhmann/improved-aesthetic-predictor), so it is one affine map, too. It is computed layer by
layer, as published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.tensors.weight_files import read_tensors

LAYERS = {"v1": ("",), "v2": ("layers.0.", "layers.2.", "layers.4.", "layers.6.", "layers.7.")}


class AestheticHead:
    """Aesthetic scores of image features."""

    def __init__(self, variant: str, weights: Path) -> None:
        """Load the layers.

        Args:
            variant: "v1" or "v2".
            weights: a torch file as published, or safetensors.

        Raises:
            BadInput: the file is unreadable, or another variant's.
        """
        self.variant = variant
        tensors = read_tensors(weights)
        wanted = {f"{layer}{part}" for layer in LAYERS[variant] for part in ("weight", "bias")}
        if tensors.keys() != wanted:
            raise BadInput(f"{weights} is no head of aesthetic:{variant}{_whose(set(tensors))}")
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise BadInput(f"{weights} is a quantised head: it holds whole numbers")
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        self.layers = [(tensors[f"{layer}weight"], tensors[f"{layer}bias"]) for layer in LAYERS[variant]]
        _check_shapes(self.layers, weights)

    @property
    def width(self) -> int:
        """Of the features that it takes."""
        return int(self.layers[0][0].shape[1])

    def score(self, features: Tensor, *, half: bool = False) -> Tensor:
        """Scores float32 `[N]` of image features float32 `[N, width]`, not normalised.

        Args:
            features: of CLIP.
            half: normalise v2's in half precision, as the official script does on a GPU; up to 1e-3 off,
                and zero for vectors longer than 256.
        """
        with torch.inference_mode():
            x = normalize_v1(features) if self.variant == "v1" else normalize_v2(features, half=half)
            for weight, bias in self.layers:
                x = F.linear(x, weight, bias)
        scores: Tensor = x[:, 0]
        return scores


def normalize_v1(features: Tensor) -> Tensor:
    """Unit rows; a zero row gives NaN, as in the official notebook."""
    norms: Tensor = features.norm(dim=-1, keepdim=True)
    return features / norms


def normalize_v2(features: Tensor, *, half: bool = False) -> Tensor:
    """Unit rows; a zero row stays zero (`simple_inference.py: normalized`, in numpy)."""
    rows = features.numpy()
    if half:
        rows = rows.astype(np.float16)
    with np.errstate(over="ignore"):  # the half norm of a long vector is infinite
        norms = np.atleast_1d(np.linalg.norm(rows, 2, -1))
    norms[norms == 0] = 1
    return torch.from_numpy((rows / norms[:, None]).astype(np.float32))


def _whose(names: set[str]) -> str:
    """What a file is instead, for a message."""
    for variant, layers in LAYERS.items():
        if names == {f"{layer}{part}" for layer in layers for part in ("weight", "bias")}:
            return f": it is aesthetic:{variant}'s"
    return f" (it has {', '.join(sorted(names)[:4])}, ...)"


def _check_shapes(layers: list[tuple[Tensor, Tensor]], path: Path) -> None:
    widths = [layer.shape[0] for layer, _ in layers]
    for number, (weight, bias) in enumerate(layers):
        fits = weight.ndim == 2 and bias.shape == weight.shape[:1]
        if not fits or (number and weight.shape[1] != widths[number - 1]) or widths[-1] != 1:
            raise BadInput(
                f"{path} is no aesthetic head: its layers must fit each other and end in one number"
            )
