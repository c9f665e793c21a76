"""A decoded picture that several scorers read, with what they have made of it so far."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from threading import RLock
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images.files import decode_stored, read_file

Made = TypeVar("Made")


class Picture:
    """A picture as it is stored, and a memory for tensors and features made of it.

    Attributes:
        image: decoded; palette, grey, CMYK and alpha are kept, the EXIF orientation is not applied, since
            the official scripts resize some of these before they convert. Sixteen bits are scaled to eight.
    """

    def __init__(self, image: Image.Image) -> None:
        """Take a decoded image."""
        self.image = image
        self._made: dict[Hashable, Any] = {}
        self._lock = RLock()  # one maker may ask for what another made

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode PNG, JPEG or WebP.

        Raises:
            BadInput: unreadable, animated or too large.
        """
        return cls(decode_stored(data))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Decode a file; raises BadInput naming it."""
        try:
            return cls.from_bytes(read_file(path))
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error

    @classmethod
    def from_pixels(cls, pixels: NDArray[np.uint8]) -> Self:
        """Take RGB uint8 `[H, W, 3]`; raises BadInput for anything else."""
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
            what = (
                f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels)
            )
            raise BadInput(f"pixels must be an array of uint8 [height, width, 3], not {what}")
        if not pixels.size:
            raise BadInput("a picture without pixels")
        return cls(Image.fromarray(pixels))

    @property
    def rgb(self) -> Image.Image:
        """In mode RGB by Pillow's own rules, as most official scripts convert: alpha is dropped."""
        return self.image if self.image.mode == "RGB" else self.once("rgb", lambda: to_rgb(self.image))

    @property
    def is_blank(self) -> bool:
        """Whether all pixels have one colour."""
        return all(low == high for low, high in _extrema(self.rgb))

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gave for this key, made at the first call."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]  # type: ignore[no-any-return]

    def has(self, key: Hashable) -> bool:
        """Whether something was made for this key."""
        return key in self._made

    def keep(self, key: Hashable, made: Any) -> None:
        """Keep what was made of several pictures at once, such as a network's features."""
        with self._lock:
            self._made[key] = made


def to_rgb(image: Image.Image) -> Image.Image:
    """By Pillow's own rules. They drop the transparency of a palette's colours, and would warn of it."""
    if isinstance(image.info.get("transparency"), bytes):
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    return image.getextrema()  # type: ignore[return-value]
