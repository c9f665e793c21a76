"""Render scenes of the demo world to pixels."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sar_eval.suites.shapes.scenes import CANVAS, Scene

SUPERSAMPLING = 4
Pixels = NDArray[np.uint8]


def _arc(radius: float, points: int = 64) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.sin(angle), -np.cos(angle)], 1) * radius


def _star() -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return np.stack([np.sin(angle), -np.cos(angle)], 1) * radius[:, None]


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1)


def _cross() -> NDArray[np.float64]:
    a, b = 0.34, 1.0
    corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b)]
    return np.array([*corners, (-a, a), (-b, a), (-b, -a), (-a, -a)])


@cache
def outlines(name: str) -> tuple[NDArray[np.float64], ...]:
    """Closed polygons of a shape, scaled so that the first one fills the unit square."""
    polygons: dict[str, tuple[NDArray[np.float64], ...]] = {
        "circle": (_arc(1.0),),
        "square": (np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)]),),
        "triangle": (np.array([(0.0, -1), (1, 1), (-1, 1)]),),
        "diamond": (np.array([(0.0, -1), (1, 0), (0, 1), (-1, 0)]),),
        "star": (_star(),),
        "cross": (_cross(),),
        "heart": (_heart(),),
        "ring": (_arc(1.0), _arc(0.5)),
    }
    low, high = polygons[name][0].min(0), polygons[name][0].max(0)
    return tuple((p - low) / (high - low) for p in polygons[name])


def shape_mask(name: str, size: int) -> NDArray[np.uint8]:
    """Coverage (0 to 255) of one shape that fills a `size` x `size` image."""
    scale = 8
    big = np.zeros((size * scale, size * scale), np.uint8)
    cv2.fillPoly(big, [np.round(p * (size * scale - 1)).astype(np.int32) for p in outlines(name)], 255)
    return np.asarray(cv2.resize(big, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def render(scene: Scene, noise: np.random.Generator | None = None) -> Pixels:
    """The scene as RGB, uint8 [64, 64, 3]; `noise` adds Gaussian noise of 3 levels."""
    side = CANVAS * SUPERSAMPLING
    big = np.full((side, side, 3), scene.background, np.uint8)
    for shape in scene.shapes:
        corner = np.array([shape.x, shape.y]) * SUPERSAMPLING
        extent = shape.size * SUPERSAMPLING - 1
        polygons = [np.round(p * extent + corner).astype(np.int32) for p in outlines(shape.name)]
        cv2.fillPoly(big, polygons, shape.rgb)
    image = cv2.resize(big, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
    if noise is not None:
        grain = noise.normal(0, 3, image.shape)
        return np.asarray(np.clip(image + grain, 0, 255).round(), np.uint8)
    return np.asarray(image, np.uint8)
