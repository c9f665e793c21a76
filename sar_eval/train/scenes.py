"""Training data: captioned scenes of the demo world."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sar_eval.storage.shards import IMAGE_SCHEMA, write_shards
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import Style, sample_scene


def make_scenes(out: Path, number: int, *, style: Style, seed: int) -> int:
    """Write `number` captioned PNG images to Parquet shards and return how many were written."""
    return write_shards(_rows(number, style, seed), out, IMAGE_SCHEMA)


def _rows(number: int, style: Style, seed: int) -> Iterator[dict[str, Any]]:
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    for index in range(number):
        scene = sample_scene(rng, style=style)
        pixels = render(scene, noise if style == "grainy" else None)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        path = f"{style}-{seed}-{index:07d}.png"
        yield {"image": {"bytes": buffer.getvalue(), "path": path}, "caption": scene.caption}
