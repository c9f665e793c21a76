"""Captioned scenes of the demo world, as training data."""

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
    return write_shards(_scenes(number, style, seed), out, IMAGE_SCHEMA)


def _scenes(number: int, style: Style, seed: int) -> Iterator[dict[str, Any]]:
    rng, grain = random.Random(seed), np.random.default_rng(seed)
    for index in range(number):
        scene = sample_scene(rng, style=style)
        buffer = io.BytesIO()
        Image.fromarray(render(scene, grain if style == "grainy" else None)).save(
            buffer, "PNG", compress_level=1
        )
        path = f"{style}-{seed}-{index:07d}.png"
        yield {"image": {"bytes": buffer.getvalue(), "path": path}, "caption": scene.caption}
