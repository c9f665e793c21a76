"""How colourful an image is: the mean saturation of its pixels."""

import io
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from PIL import Image

from sar_eval.types import Generation, Prompt, Verdict


class Saturation:
    """An example judge: one file with a docstring and `JUDGE`. Options are keyword arguments.

    `device` is the device of its worker: `cpu` or `cuda`.
    """

    version = "1"

    def __init__(self, device: str = "cpu", least: float = 0.1) -> None:
        self.device, self.least = device, least

    def __enter__(self) -> Self:
        return self  # load weights here

    def __exit__(self, *error: object) -> None:
        return None  # free them here

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; `score` is the mean saturation, 0 to 1."""
        for _, generation in items:
            with Image.open(io.BytesIO(generation.image or b"")) as image:
                score = float(np.asarray(image.convert("HSV"))[..., 1].mean() / 255)
            passed = score >= self.least
            reason = "" if passed else f"saturation {score:.2f} is below {self.least}"
            yield Verdict(generation.key, "saturation", self.version, score, passed, reason)


JUDGE = Saturation
