"""Pictures, features and random weights of Inception that the reference data of set distances is made of.

All of it follows from seeds by NumPy's `random` and `integers`: weights of 90 MB need not be stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent / "golden" / "distance"  # the reference data
CLASSES = 1008
SIZES = ((131, 97), (299, 299), (64, 64), (512, 301), (30, 700), (299, 150))  # width, height


def pictures(number: int, seed: int) -> list[Image.Image]:
    """RGB pictures of coloured tiles with noise, of the sizes above in turn."""
    rng = np.random.default_rng(seed)
    return [_picture(SIZES[n % len(SIZES)], rng) for n in range(number)]


def _picture(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    tiles = rng.integers(0, 236, (height // 16 + 1, width // 16 + 1, 3))
    pixels = np.kron(tiles, np.ones((16, 16, 1), dtype=np.int64))[:height, :width]
    return Image.fromarray((pixels + rng.integers(0, 20, pixels.shape)).astype(np.uint8))


def random_state(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights by name, of a size that keeps activations near 1."""
    rng = np.random.default_rng(seed)
    return {name: _tensor(name, shapes[name], rng) for name in sorted(shapes)}


def _tensor(name: str, shape: Sequence[int], rng: np.random.Generator) -> NDArray[np.float32]:
    values = rng.random(tuple(shape), dtype=np.float32) * 2 - 1
    if name.endswith("num_batches_tracked"):
        return np.zeros((), dtype=np.float32)
    if name.endswith(("bn.weight", "running_var")):
        return values / 2 + 1
    if len(shape) == 4:
        return values * np.float32((6 / np.prod(shape[1:])) ** 0.5)
    return values / 10


def features(n: int, dimensions: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    """Correlated, skewed vectors `[n, dimensions]`, as features after a ReLU are."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).random((dimensions, dimensions)) - 0.5
    values = (rng.random((n, dimensions)) ** 2) @ mix / dimensions**0.5
    return np.maximum(values + shift, 0).astype(np.float32)


def narrow(shapes: Mapping[str, Sequence[int]], by: int = 16) -> dict[str, list[int]]:
    """Shapes of the same network with fewer channels; the classifier keeps its classes."""
    return {
        name: [size // by if size % by == 0 and size != CLASSES else size for size in shape]
        for name, shape in shapes.items()
    }
