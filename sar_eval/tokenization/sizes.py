"""Which size a picture gets, and how it is brought to it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.tokenization.reasons import Refused

MAX_STRETCH = 1.1  # of one side against the other, without cropping: further, things look wrong
Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True, slots=True)
class SizeRule:
    """Brings pictures to sizes that the tokenizer takes.

    Attributes:
        options: see `TokenizeOptions`.
        patch: pixels of whose multiples a picture's height and width are.
    """

    options: TokenizeOptions
    patch: Size

    def fit(self, pixels: NDArray[np.uint8], key: str) -> NDArray[np.uint8]:
        """RGB uint8 `[H, W, 3]` at its size; bicubic with antialiasing where that differs.

        Raises:
            Refused: the picture is too small, or of a shape that these rules do not take.
        """
        size = pixels.shape[0], pixels.shape[1]
        target = self.target(size)
        if target == size:
            return pixels
        box = self._box(size, target, key)
        image = Image.fromarray(pixels).resize(target[::-1], Image.Resampling.BICUBIC, box)
        return np.asarray(image)

    def target(self, size: Size) -> Size:
        """The size that a picture of `size` gets.

        Raises:
            Refused: see `fit`.
        """
        if min(size) < self.options.min_side:
            raise Refused("too_small", f"{size[1]}x{size[0]} pixels")
        if self.options.size is None:
            if any(side % patch or not side for side, patch in zip(size, self.patch, strict=True)):
                patch = f"{self.patch[1]}x{self.patch[0]}"
                raise Refused(
                    "does_not_fit", f"{size[1]}x{size[0]} pixels, no multiples of {patch}; say --size"
                )
            return size
        if not self.options.buckets:
            return self.options.size
        area = math.prod(self.options.size)
        return nearest(size, bucket_sizes(area, self.options.buckets, self.options.max_aspect))

    def _box(self, size: Size, target: Size, key: str) -> tuple[float, float, float, float]:
        """The part of a picture of `size` that is kept, as left, top, right, bottom in its pixels."""
        ratio = (size[0] * target[1]) / (size[1] * target[0])  # how much taller it is than its target
        if self.options.crop == "none":
            if max(ratio, 1 / ratio) > MAX_STRETCH:
                raise Refused("aspect_ratio", f"{size[1]}x{size[0]} pixels to {target[1]}x{target[0]}")
            return 0.0, 0.0, float(size[1]), float(size[0])
        height, width = size[0] / max(ratio, 1.0), size[1] * min(ratio, 1.0)
        across, down = self._place(key)
        left, top = (size[1] - width) * across, (size[0] - height) * down
        return left, top, min(left + width, size[1]), min(top + height, size[0])

    def _place(self, key: str) -> tuple[float, float]:
        """Where in what is left over the kept part begins, in [0, 1): a function of seed and key alone."""
        if self.options.crop == "centre":
            return 0.5, 0.5
        digest = hashlib.blake2b(f"{self.options.seed}/{key}".encode(), digest_size=8).digest()
        across, down = (int.from_bytes(half, "big") / 2**32 for half in (digest[:4], digest[4:]))
        return across, down


@cache
def bucket_sizes(area: int, step: int, max_aspect: float) -> tuple[Size, ...]:
    """The sizes (height, width) of multiples of `step` that no wider or taller one of this area contains.

    Args:
        area: pixels, at most; of a square of `step` at least, so that there is a size.
        step: pixels.
        max_aspect: longer side over shorter side, at most.
    """
    found = set()
    for height in range(step, int(math.sqrt(area * max_aspect)) + step, step):
        width = min(area // height, int(height * max_aspect)) // step * step
        if width and height <= max_aspect * width:
            found |= {(height, width), (width, height)}
    inside = {
        small
        for small in found
        if any(small != large and small[0] <= large[0] and small[1] <= large[1] for large in found)
    }
    return tuple(sorted(found - inside))


def nearest(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose shape is nearest to that of `size`, by the ratio of the ratios."""
    ratio = math.log(size[0] / size[1])

    def distance(bucket: Size) -> tuple[float, int]:
        return abs(math.log(bucket[0] / bucket[1]) - ratio), -math.prod(bucket)

    return min(buckets, key=distance)
