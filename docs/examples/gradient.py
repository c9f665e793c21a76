"""Draws a colour gradient that depends on the draw's seed alone, not on the prompt."""

import io
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from PIL import Image

from sar_eval.types import Draw, DrawProtocol, Generation


class Gradient:
    """An example engine: one file with a docstring and `ENGINE`. The constructor loads nothing."""

    version = "1"

    def __init__(self, checkpoint: str, protocol: DrawProtocol, **options: object) -> None:
        self.checkpoint, self.options = checkpoint, options  # what a real engine loads, with its options
        self.side = protocol.resolution

    def __enter__(self) -> Self:
        return self  # load weights here

    def __exit__(self, *error: object) -> None:
        return None  # release them here

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """One image per draw; the same seed gives the same image."""
        for draw in draws:
            color = np.random.default_rng(draw.seed).integers(0, 256, 3)
            ramp = np.linspace(0, 1, self.side)[None, :, None] * np.ones((self.side, 1, 1))
            buffer = io.BytesIO()
            Image.fromarray((ramp * color).astype(np.uint8)).save(buffer, "PNG")
            yield Generation(draw.key, draw.seed, image=buffer.getvalue())


ENGINE = Gradient
