"""Digests of pictures: one of the exact pixels, and a hash of 64 bits that near-duplicates share most of.

The perceptual hash is pHash in the form of the `ImageHash` package (`imagehash.phash`, 8 x 8): C. Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1. The picture is
made grey and 32 x 32; of its discrete cosine transform the 8 x 8 lowest frequencies are kept, and each bit
says whether one of them is above their median. Rescaling, recompression and slight changes of colour
leave most bits as they are. Half of the bits are ones, but for ties, so distances are even almost always.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # pixels of the grey picture that is transformed
FREQUENCIES = 8  # a side of what is kept: 8 x 8 bits
BITS = FREQUENCIES**2
SCALE = 2**14  # of the integer cosines
DIGEST_BYTES = 16


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """64-bit perceptual hash of RGB uint8 `[H, W, 3]`; see the module's text.

    All of it is integer arithmetic, so that every machine and every BLAS finds the same bits. The first
    bit is the mean brightness, which is above the median in all but black pictures.
    """
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    cosines = _cosines()
    spectrum = (cosines @ np.asarray(grey, np.int64) @ cosines.T).ravel()
    middle = np.sort(spectrum)[BITS // 2 - 1 : BITS // 2 + 1]
    bits = 2 * spectrum > middle.sum()  # the median of an even number of values is the mean of two
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_distance(left: int, right: int) -> int:
    """In how many bits two perceptual hashes differ (Hamming distance)."""
    return (left ^ right).bit_count()


def pixel_digest(pixels: NDArray[np.uint8]) -> bytes:
    """16 bytes that two pictures share if and only if they have the same size and pixels: BLAKE2b."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


@cache
def _cosines() -> NDArray[np.int64]:
    """The lowest rows of the type II DCT, `[FREQUENCIES, SIDE]`, times `SCALE`.

    Rounding keeps their symmetry, so all rows but the first sum to nought and a flat picture has no noise.
    """
    frequency, place = np.arange(FREQUENCIES)[:, None], np.arange(SIDE)[None, :]
    waves = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))
    return np.asarray(np.rint(SCALE * waves), np.int64)
