"""What `train tokenize` is asked for, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sar_eval.errors import BadInput
from sar_eval.types import Json

ASPECT = 2.0  # of the longest bucket
CROPS = ("centre", "random", "none")
FORMATS = ("pictures", "parquet", "webdataset")
MAX_CAPTION = 65_536  # characters
MAX_SIDE = 8192  # pixels of a size that is asked for
_SIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?", re.ASCII)
_RANGE = re.compile(r"(\d{0,9}):(\d{0,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeOptions:
    """What decides the rows, beside tokenizer and places.

    Attributes:
        size: (height, width) in pixels; None takes pictures as they are.
        crop: what is cut off where the shape differs: "centre" and "random" keep the middle or a part
            chosen by `seed` and key, "none" stretches by up to `sizes.MAX_STRETCH`.
        buckets: sides may be any multiples of so many pixels, with an area of at most `size`'s, and each
            picture gets the shape nearest to its own; 0 is one size for all.
        max_aspect: the longer side of a bucket over its shorter one, at most.
        min_side: pixels of the shorter side of a picture as it comes; a smaller one is left out.
        caption_length: characters of a caption, least and most; others are left out.
        caption_columns: where captions are; by default the usual names.
        image_column: of Parquet files; by default the usual names.
        format: one of `FORMATS`, where a place has several kinds of files; "" finds out.
        block_pictures: of a block, and so of a shard.
        seed: of random crops.
    """

    size: tuple[int, int] | None = None
    crop: str = "centre"
    buckets: int = 0
    max_aspect: float = ASPECT
    min_side: int = 0
    caption_length: tuple[int, int] = (1, MAX_CAPTION)
    caption_columns: tuple[str, ...] = ()
    image_column: str = ""
    format: str = ""
    block_pictures: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            BadInput: naming the flag.
        """
        if self.crop not in CROPS:
            raise BadInput(f"--crop is {self.crop!r}: {', '.join(CROPS)}")
        if self.format and self.format not in FORMATS:
            raise BadInput(f"--format is {self.format!r}: {', '.join(FORMATS)}")
        for idle, message in (
            (self.buckets and self.size is None, "--buckets needs --size: the area that no bucket exceeds"),
            (self.crop != "centre" and self.size is None, f"--crop {self.crop} needs --size"),
            (self.seed and self.crop != "random", "--seed is of --crop random, which is missing"),
            (self.max_aspect != ASPECT and not self.buckets, "--max-aspect needs --buckets"),
        ):
            if idle:
                raise BadInput(message)
        if self.size is not None and self.buckets**2 > self.size[0] * self.size[1]:
            raise BadInput(f"--buckets {self.buckets}: not even one square of it has --size's area")
        if not 1 <= self.max_aspect <= 16:
            raise BadInput(f"--max-aspect is {self.max_aspect}: from 1 (squares) to 16")

    def check_patch(self, height: int, width: int) -> None:
        """Refuse sizes that the tokenizer does not take.

        Args:
            height, width: pixels whose multiples its pictures' sides are.

        Raises:
            BadInput: naming the flag and the nearest sizes that would do.
        """
        for name, side, patch in zip(("height", "width"), self.size or (), (height, width), strict=False):
            if side % patch:
                near = max(side // patch, 1) * patch
                raise BadInput(
                    f"--size {side}: this tokenizer takes pictures whose {name} is a multiple of {patch} "
                    f"pixels: {near} or {near + patch}"
                )
        if self.buckets % (both := math.lcm(height, width)):
            raise BadInput(f"--buckets {self.buckets}: sides are multiples of the tokenizer's {both}")

    def to_json(self) -> dict[str, Json]:
        """As `tokenization.json` has it; tuples are lists there."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


def parse_size(text: str) -> tuple[int, int] | None:
    """`512` or `HEIGHTxWIDTH` as (height, width); "" as None.

    Raises:
        BadInput: it is neither, or out of range.
    """
    if not text:
        return None
    match = _SIZE.fullmatch(text)
    sides = tuple(int(side) for side in (match[1], match[2] or match[1])) if match else ()
    if not sides or not all(1 <= side <= MAX_SIDE for side in sides):
        raise BadInput(
            f"--size is {text!r}: pixels of a square, as 512, or HEIGHTxWIDTH, up to {MAX_SIDE:,} a side"
        )
    return sides[0], sides[1]


def parse_length(text: str) -> tuple[int, int]:
    """`LOW:HIGH` characters; either may be left out.

    Raises:
        BadInput: it is of another form, or no length lies between.
    """
    match = _RANGE.fullmatch(text) if text else None
    if text and not match:
        raise BadInput(f"--caption-length is {text!r}: LOW:HIGH in characters, as 3:500, 3: or :500")
    low, high = (match[1], match[2]) if match else ("", "")
    found = max(1, int(low or 1)), int(high or MAX_CAPTION)
    if found[1] > MAX_CAPTION:
        raise BadInput(f"--caption-length is {text!r}: of at most {MAX_CAPTION:,} characters")
    if found[0] > found[1]:
        raise BadInput(f"--caption-length is {text!r}: no length lies between")
    return found


def check_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Names of caption columns.

    Raises:
        BadInput: one is empty or there twice.
    """
    if not all(columns) or len(set(columns)) < len(columns):
        raise BadInput("--caption-column: each name once, and none empty")
    return tuple(columns)
