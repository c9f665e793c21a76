"""Says whether an image is brighter than a limit, whatever it is asked."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sar_eval.types import Answer


class Brightness:
    """An example answerer: one file with a docstring and `ANSWERER`. Options are keyword arguments.

    `device` is where its worker's weights go: `cpu` or `cuda`.
    """

    def __init__(self, device: str = "cpu", limit: float = 0.5) -> None:
        self.device, self.limit = device, limit
        self.version = "1"  # changes whenever an answer may; name the network and its weights in it

    def __enter__(self) -> Self:
        return self  # load weights here

    def __exit__(self, *error: object) -> None:
        return None  # let them go here

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image (RGB uint8 `[H, W, 3]`), in the order given."""
        for pixels, questions in images:
            brightness = float(pixels.mean() / 255)
            yes = brightness > self.limit
            yield [Answer("yes" if yes else "no", yes, soft=round(brightness, 6)) for _ in questions]


ANSWERER = Brightness
