"""Detect plain coloured shapes in pixels, without a network.

An image's background is its most common colour. The other pixels are split into connected
regions; a region's shape is the one whose outline, stretched to the region's box, overlaps it
best, its colour the nearest of GenEval's ten in CIELAB.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_eval.images.masks import encode_mask
from sar_eval.suites.shapes.render import shape_mask
from sar_eval.suites.shapes.vocabulary import PALETTE, SHAPES
from sar_eval.types import Detection

TEMPLATE_SIDE = 32  # pixels at which outlines are compared
MIN_CONTRAST = 20.0  # CIELAB distance from the background of a shape's pixels
BLURS = (0.0, 0.05, 0.08)  # blurs to match against: standard deviation as a share of the shape's size
MIN_AREA = 40  # pixels; smaller regions are noise
Pixels = NDArray[np.uint8]


def _lab(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """sRGB uint8 [..., 3] to CIELAB (L 0 to 100)."""
    flat = np.asarray(rgb, np.float32).reshape(-1, 1, 3) / 255
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2LAB), np.float32).reshape(np.shape(rgb))


@cache
def _palette() -> NDArray[np.float32]:
    return _lab(np.array(list(PALETTE.values()), np.uint8)).astype(np.float32)


@cache
def _templates() -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names and stretched outlines [number, 32, 32], each shape with every blur."""
    pairs = [(name, _blurred_outline(name, blur)) for name in SHAPES for blur in BLURS]
    return tuple(name for name, _ in pairs), np.stack([outline for _, outline in pairs])


def _resize(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    side = (TEMPLATE_SIDE, TEMPLATE_SIDE)
    return np.asarray(cv2.resize(mask, side, interpolation=cv2.INTER_AREA), np.float32)


def _blurred_outline(name: str, blur: float) -> NDArray[np.float32]:
    """A shape's outline after a blur (a share of its size), cropped to its box and resized."""
    size, margin = 2 * TEMPLATE_SIDE, TEMPLATE_SIDE
    mask = np.pad(shape_mask(name, size), margin).astype(np.float32) / np.float32(255)
    if blur:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), blur * size), np.float32)
    ys, xs = np.nonzero(mask > 0.5)
    return _resize((mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] > 0.5).astype(np.float32))


def detect(image: Pixels) -> list[Detection]:
    """All shapes of an RGB image uint8 [H, W, 3], best first."""
    lab = _lab(image)
    distance = np.linalg.norm(lab - _background(image, lab), axis=-1)
    # The edge of a blurred shape is where the contrast is half of the shape's own.
    nearby_max = cv2.dilate(distance, np.ones((5, 5), np.uint8))
    solid = distance > np.maximum(MIN_CONTRAST, nearby_max / 2)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8), connectivity=4)
    detections = []
    for label in range(1, number):
        x, y, width, height, area = (int(v) for v in stats[label])
        if area >= MIN_AREA and min(width, height) >= 6:
            window = (slice(y, y + height), slice(x, x + width))
            region = labels[window] == label
            detections.append(_detection(region, lab[window], (x, y), image.shape[:2]))
    return sorted(detections, key=lambda d: -d.score)


def _background(image: Pixels, lab: NDArray[np.float32]) -> NDArray[np.float32]:
    coarse = image.reshape(-1, 3).astype(np.int32) >> 4
    codes = coarse[:, 0] << 8 | coarse[:, 1] << 4 | coarse[:, 2]
    most_common = np.bincount(codes).argmax()
    return np.asarray(np.median(lab.reshape(-1, 3)[codes == most_common], axis=0), np.float32)


def _detection(
    region: NDArray[np.bool_], lab: NDArray[np.float32], corner: tuple[int, int], size: tuple[int, ...]
) -> Detection:
    name, score = _classify_shape(region)
    x, y = corner
    height, width = region.shape
    mask = np.zeros(size, bool)
    mask[y : y + height, x : x + width] = region
    box = (float(x), float(y), float(x + width), float(y + height))
    return Detection(name, box, score, _classify_color(region, lab), encode_mask(mask))


def _classify_shape(region: NDArray[np.bool_]) -> tuple[str, float]:
    """Best matching shape and its soft IoU; regions far from square get a lower score."""
    stretched = _resize(region.astype(np.float32))
    names, outlines = _templates()
    intersection = np.minimum(outlines, stretched).sum((1, 2))
    union = np.maximum(outlines, stretched).sum((1, 2))
    overlaps = intersection / union
    best = int(overlaps.argmax())
    height, width = region.shape
    squeeze = min(1.0, 1.25 * min(height, width) / max(height, width))
    return names[best], float(overlaps[best]) * squeeze


def _classify_color(region: NDArray[np.bool_], lab: NDArray[np.float32]) -> str:
    """Palette colour nearest to the region's interior (its edge blends with the background)."""
    interior = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    pixels = lab[interior if interior.any() else region]
    median = np.median(pixels, axis=0)
    return tuple(PALETTE)[int(np.linalg.norm(_palette() - median, axis=1).argmin())]
