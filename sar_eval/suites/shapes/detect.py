"""Detect plain coloured shapes in pixels, without a network.

An image's background is its most common colour. The other pixels are split into connected
regions; a region's shape is the one whose outline, stretched to the region's box, overlaps it
best, its colour the nearest of GenEval's ten in CIELAB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_eval.images.masks import encode_mask
from sar_eval.suites.shapes.render import shape_mask
from sar_eval.suites.shapes.vocabulary import PALETTE, SHAPES
from sar_eval.types import Box, Detection

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


@dataclass(frozen=True, slots=True)
class Region:
    """Connected pixels that stand out from the background.

    Attributes:
        mask: bool `[h, w]`, of the region's box.
        corner: x and y of the box in the image.
        lab: median CIELAB of the interior (the edge blends with the background).
    """

    mask: NDArray[np.bool_]
    corner: tuple[int, int]
    lab: NDArray[np.float32]

    @property
    def box(self) -> Box:
        """In pixels of the image."""
        (x, y), (height, width) = self.corner, self.mask.shape
        return float(x), float(y), float(x + width), float(y + height)

    def overlaps(self) -> dict[str, float]:
        """Soft IoU with the outline of each shape; less for regions far from square."""
        stretched = _resize(self.mask.astype(np.float32))
        names, outlines = _templates()
        intersection = np.minimum(outlines, stretched).sum((1, 2))
        union = np.maximum(outlines, stretched).sum((1, 2))
        height, width = self.mask.shape
        squeeze = min(1.0, 1.25 * min(height, width) / max(height, width))
        found: dict[str, float] = {}
        for name, overlap in zip(names, intersection / union, strict=True):
            found[name] = max(found.get(name, 0.0), float(overlap) * squeeze)
        return found

    def color_distances(self) -> dict[str, float]:
        """CIELAB distance (CIE76) to each colour of the palette."""
        distances = np.linalg.norm(_palette() - self.lab, axis=1)
        return dict(zip(PALETTE, map(float, distances), strict=True))


def detect(image: Pixels) -> list[Detection]:
    """All shapes of an RGB image uint8 [H, W, 3], best first."""
    detections = [_detection(region, image.shape[:2]) for region in find_regions(image)]
    return sorted(detections, key=lambda d: -d.score)


def find_regions(image: Pixels) -> list[Region]:
    """What stands out from the background of an RGB image uint8 [H, W, 3], without noise."""
    lab = _lab(image)
    distance = np.linalg.norm(lab - _background(image, lab), axis=-1)
    # The edge of a blurred shape is where the contrast is half of the shape's own.
    nearby_max = cv2.dilate(distance, np.ones((5, 5), np.uint8))
    solid = distance > np.maximum(MIN_CONTRAST, nearby_max / 2)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8), connectivity=4)
    regions = []
    for label in range(1, number):
        x, y, width, height, area = (int(v) for v in stats[label])
        if area >= MIN_AREA and min(width, height) >= 6:
            window = (slice(y, y + height), slice(x, x + width))
            mask = labels[window] == label
            regions.append(Region(mask, (x, y), _interior_color(mask, lab[window])))
    return regions


def _background(image: Pixels, lab: NDArray[np.float32]) -> NDArray[np.float32]:
    coarse = image.reshape(-1, 3).astype(np.int32) >> 4
    codes = coarse[:, 0] << 8 | coarse[:, 1] << 4 | coarse[:, 2]
    most_common = np.bincount(codes).argmax()
    return np.asarray(np.median(lab.reshape(-1, 3)[codes == most_common], axis=0), np.float32)


def _detection(region: Region, size: tuple[int, ...]) -> Detection:
    overlaps, distances = region.overlaps(), region.color_distances()
    name, color = max(overlaps, key=overlaps.__getitem__), min(distances, key=distances.__getitem__)
    (x, y), (height, width) = region.corner, region.mask.shape
    mask = np.zeros(size, bool)
    mask[y : y + height, x : x + width] = region.mask
    return Detection(name, region.box, overlaps[name], color, encode_mask(mask))


def _interior_color(mask: NDArray[np.bool_], lab: NDArray[np.float32]) -> NDArray[np.float32]:
    interior = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    pixels = lab[interior if interior.any() else mask]
    return np.asarray(np.median(pixels, axis=0), np.float32)
