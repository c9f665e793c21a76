"""Colourfulness of a picture by Hasler and Süsstrunk's formula: no prompt, no network, no download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from sar_eval.types import Score, ScorerFacts

if TYPE_CHECKING:
    from sar_eval.images.picture import Picture


ROWS = 256  # of one block


class Colourfulness:
    """M = sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2) with rg = R - G and yb = (R + G) / 2 - B.

    m and s are mean and standard deviation over the pixels of the sRGB values 0 to 255. About 0 is grey, 15
    slightly, 33 moderately, 59 quite and 109 extremely colourful (Hasler and Süsstrunk, "Measuring
    colourfulness in natural images", SPIE 5007, 2003, section 6).
    """

    variants: ClassVar[Mapping[str, ScorerFacts]] = {
        "": ScorerFacts("points", 0.0, None, needs_prompt=False, licence="formula of a paper", cost=0.01)
    }

    def __init__(self, *, variant: str = "", device: str = "cpu", dtype: str = "float32") -> None:
        """Nothing to choose: it reads pixels on the CPU."""
        del device, dtype
        self.variant, self.facts, self.version = variant, self.variants[variant], "1"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def prepare(self, picture: Picture) -> None:
        """All of it is done in the decoding thread."""
        picture.once("colourfulness", lambda: _colourfulness(picture))

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """One number for each picture; prompts are not read."""
        del prompts
        for picture in pictures:
            yield Score(picture.once("colourfulness", lambda: _colourfulness(picture)))  # noqa: B023


def _colourfulness(picture: Picture) -> float:
    """Exact sums over some rows at a time: pictures may have millions of pixels."""
    pixels, number = np.asarray(picture.rgb), picture.rgb.width * picture.rgb.height
    sums, squares = np.zeros(2), np.zeros(2)
    for start in range(0, len(pixels), ROWS):
        red, green, blue = np.moveaxis(pixels[start : start + ROWS].astype(np.int32), 2, 0)
        for axis, opponent in enumerate((2 * (red - green), red + green - 2 * blue)):  # twice rg and yb
            sums[axis] += opponent.sum(dtype=np.int64)
            squares[axis] += (opponent**2).sum(dtype=np.int64)
    means = sums / number / 2
    variances = np.maximum(squares / number / 4 - means**2, 0)
    return float(np.sqrt(variances.sum()) + 0.3 * np.sqrt((means**2).sum()))


SCORER = Colourfulness
