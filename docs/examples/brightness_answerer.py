"""Answers yes to every question if an image is brighter than a limit."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sar_eval.types import Answer


class Brightness:
    """An example answerer: one file with a docstring and `ANSWERER`. Options are keyword arguments.

    `device` is the device of its worker: `cpu` or `cuda`.
    """

    def __init__(self, device: str = "cpu", limit: float = 0.5) -> None:
        self.device, self.limit = device, limit
        self.version = "1"  # change it when answers change; put the network and its weights into it

    def __enter__(self) -> Self:
        return self  # load weights here

    def __exit__(self, *error: object) -> None:
        return None  # free them here

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image (RGB uint8 `[H, W, 3]`), in the same order."""
        for pixels, questions in images:
            brightness = float(pixels.mean() / 255)
            yes = brightness > self.limit
            yield [Answer("yes" if yes else "no", yes, soft=round(brightness, 6)) for _ in questions]


ANSWERER = Brightness
