"""A narrow Inception with random weights, in pytorch-fid's form, and folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.inception_case import FOLDER, narrow, pictures, random_state


def save_inception(path: Path, seed: int = 3) -> Path:
    """Write the weights: 128 features, 400 kB."""
    shapes = narrow(json.loads((FOLDER / "shapes.json").read_text()))
    torch.save(
        {name: torch.from_numpy(values) for name, values in random_state(shapes, seed).items()}, path
    )
    return path


def save_pictures(folder: Path, number: int, seed: int) -> Path:
    """Write PNGs of several sizes."""
    folder.mkdir()
    for index, picture in enumerate(pictures(number, seed)):
        picture.save(folder / f"{index:03d}.png")
    return folder
