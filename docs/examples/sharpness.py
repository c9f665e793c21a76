"""How sharp a picture is: the variance of its Laplacian."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import numpy as np

from sar_eval.images.picture import Picture
from sar_eval.types import Score, ScorerFacts


class Sharpness:
    """An example scorer: one file with a docstring and `SCORER`.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000: each grey pixel, 0 to
    255, is compared with its four neighbours; blurred pictures have little variance.
    """

    # Unit, lowest and highest number (None: no limit), whether it reads the prompt, licence.
    variants: ClassVar = {"": ScorerFacts("variance", 0.0, None, needs_prompt=False, licence="a formula")}

    def __init__(
        self, variant: str = "", device: str = "cpu", dtype: str = "float32", scale: float = 1.0
    ) -> None:
        self.variant, self.facts = variant, self.variants[variant]
        self.device, self.dtype, self.scale = device, dtype, scale  # a network goes there, as that
        self.version = f"1+scale{scale}"  # names whatever changes a number

    def __enter__(self) -> Self:
        return self  # load weights here

    def __exit__(self, *error: object) -> None:
        return None  # free them here

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """One number for each picture, or why there is none."""
        for picture, _ in zip(pictures, prompts, strict=True):
            if min(picture.image.size) < 3:
                yield Score(error="no pixel has four neighbours")
                continue
            grey = np.asarray(picture.rgb.convert("L"), np.float64)
            neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
            yield Score(self.scale * float((neighbours - 4 * grey[1:-1, 1:-1]).var()))


SCORER = Sharpness
