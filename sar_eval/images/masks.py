"""Object masks as COCO run lengths, the encoding in verdict evidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sar_eval.types import Json


def encode_mask(mask: NDArray[np.bool_]) -> Json:
    """Uncompressed COCO run lengths of a mask `[H, W]`: column by column, background first."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = [int(n) for n in np.diff(edges)]
    starts_inside = flat.size > 0 and bool(flat[0])
    return {"size": [int(n) for n in mask.shape], "counts": [0, *counts] if starts_inside else counts}


def decode_mask(encoded: Json) -> NDArray[np.bool_]:
    """The mask `[H, W]` of run lengths from `encode_mask`."""
    height, width = encoded["size"]
    counts = np.asarray(encoded["counts"])
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape((height, width), order="F")
