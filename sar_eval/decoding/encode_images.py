"""From visual codes to encoded images."""

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

    from sar_eval.families.family import ImageDecoder

FORMATS = ("png", "webp")
UNCOMPRESSED = "uncompressed"  # PNG as it is, for pictures of which most are thrown away
DECODE_BATCH = 8  # images per forward of the visual tokenizer: 128 of 1024 pixels would take 1.6 GB a layer


def encode(pixels: NDArray[np.uint8], image_format: str) -> bytes:
    """Encode RGB uint8 `[H, W, 3]` as a lossless file: `png`, `webp` or `UNCOMPRESSED`.

    PNG is written at level 1: `benchmarks/speed/encode_images.py` measures time and size of the levels.
    """
    buffer = io.BytesIO()
    if image_format == "webp":
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=0, method=0, exact=True)
    else:
        level = 0 if image_format == UNCOMPRESSED else 1
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def check_format(image_format: str) -> None:
    """Check the name of an image format.

    Raises:
        BadInput: there is no such format.
    """
    if image_format not in FORMATS:
        raise BadInput(f"unknown image format {image_format!r}: {' or '.join(FORMATS)}")


def images_from_codes(
    decoder: ImageDecoder,
    codes: Tensor,
    image_format: str,
    threads: int,
    batch_size: int = DECODE_BATCH,
) -> list[bytes | None]:
    """Decode codes `[B, h, w]` and encode the images as files, in order.

    An image with values that are NaN or infinite is None. Files are compressed in threads, which is enough
    because compression releases the GIL. `batch_size` images are decoded at once.
    """

    def encode_finite(image: Tensor, finite: Tensor) -> bytes | None:
        return encode(image.numpy(), image_format) if finite else None

    with ThreadPoolExecutor(max(1, threads)) as pool:
        pending = [pool.map(encode_finite, *decoder.decode(batch)) for batch in codes.split(batch_size)]
        return [file for files in pending for file in files]
