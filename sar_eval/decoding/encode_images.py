"""From visual codes to encoded images, beside the decoding of the next ones."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.families.cosmos import VisualTokenizer

FORMATS = ("png", "webp")
AT_ONCE = 8  # images of one forward of the visual tokenizer: 1024 pixels of 128 would be 1.6 GB a layer


def encode(pixels: NDArray[np.uint8], form: str) -> bytes:
    """RGB uint8 `[H, W, 3]` as a lossless file: `png` or `webp`.

    Level 1 of PNG: `benchmarks/speed/encode_images.py` shows what the levels cost and save.
    """
    buffer = io.BytesIO()
    if form == "webp":
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=0, method=0, exact=True)
    else:
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def check_format(form: str) -> None:
    """Raise BadInput if there is no such format."""
    if form not in FORMATS:
        raise BadInput(f"unknown image format {form!r}: {' or '.join(FORMATS)}")


def make_images(
    visual: VisualTokenizer, codes: Tensor, side: int, form: str, threads: int, at_once: int = AT_ONCE
) -> list[bytes]:
    """Encoded images of codes `[B, side * side]`, in order; files are compressed in threads.

    Compression lets go of the interpreter, so threads are enough. `at_once` images are decoded by one
    forward of the visual tokenizer.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = [
            pool.map(lambda image: encode(image.numpy(), form), visual.decode(some, side))
            for some in codes.split(at_once)
        ]
        return [file for files in waiting for file in files]
