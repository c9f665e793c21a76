"""Four images of one prompt in one file: a 2x2 grid, with or without padding, found and cut exactly.

torchvision's `make_grid` and `save_image` put `padding` lines (2 unless told) of one grey value (0
unless told) between the tiles and around them; others put them only between. DPG-Bench's own script
expects none, and shifts every crop where there are some.

A padding shows as lines of one grey value: `between` of them around the middle of both axes, `around`
of them along each edge. Lines of the tiles themselves may be as plain, so each count may come out too
high; where tiles have equal margins m, it is p + 2m between and p + m around, which gives p away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 16  # lines; wider ones are the images' own
PLAIN = 0.35  # share of a typical line's distance from the padding's value that a padding line may have
NOISE = 2.0  # grey levels by which JPEG changes a plain line at the least
GREY = 40.0  # largest difference between the channels of a padding into which JPEG smeared colour
SEAM = 2.0  # how much harder than the steps beside it the one from tile to tile is at the least
PLAINEST = 0.5  # grey levels; a middle that changes less is too plain to tell anything
LIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)  # JPEG's weights of red, green and blue
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Grid:
    """How four tiles lie in one image.

    Attributes:
        tile: (width, height) of each.
        padding: lines between them.
        around: the padding also goes around them.
    """

    tile: tuple[int, int]
    padding: int = 0
    around: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole image."""
        extra = self.padding * (3 if self.around else 1)
        return 2 * self.tile[0] + extra, 2 * self.tile[1] + extra

    def cut(self, pixels: Pixels) -> list[Pixels]:
        """The four tiles of an image `[H, W, 3]` of this size, row by row."""
        width, height = self.tile
        first = self.padding if self.around else 0
        xs, ys = ((first, first + side + self.padding) for side in self.tile)
        return [pixels[y : y + height, x : x + width] for y in ys for x in xs]

    def fits(self, pixels: Pixels, *, lossy: bool = False) -> bool:
        """Whether an image has this size, and this padding (or more plain lines)."""
        if pixels.shape[1::-1] != self.size:
            return False
        between, around = plain_lines(pixels, lossy=lossy) if self.padding else (0, 0)
        return between >= self.padding and (not self.around or around >= self.padding)

    def __str__(self) -> str:
        where = f"{self.padding} px padding{' and border' if self.around else ''}"
        return f"{where if self.padding else 'no padding'}, {self.tile[0]}x{self.tile[1]}"


def detect_grid(pixels: Pixels, *, lossy: bool = False) -> Grid | None:
    """How an image uint8 `[H, W, 3]` was put together, or None if it cannot be cut into 2x2.

    Without a padding, any image of even sides can be a grid: that an image is one is not looked at.

    Args:
        pixels: RGB.
        lossy: the file was a JPEG, so that a padding is only about plain.
    """
    height, width = pixels.shape[:2]
    between, around = plain_lines(pixels, lossy=lossy)
    padding = between if around == 0 else min(between, max(0, 2 * around - between))
    extra = padding * (3 if around else 1)
    if padding > MOST or any((side - extra) % 2 or side - extra < 2 for side in (width, height)):
        padding = extra = 0
    if not padding and (width % 2 or height % 2):
        return None
    return Grid(((width - extra) // 2, (height - extra) // 2), padding, bool(padding and around))


def plain_lines(pixels: Pixels, *, lossy: bool = False) -> tuple[int, int]:
    """How many lines of one grey value lie around the middle of both axes, and along every edge.

    The value is that of the image's middle. The first count has the parity of the sides, so that it
    lies in the middle; 0 where the sides' parities differ.
    """
    height, width = pixels.shape[:2]
    columns, rows = _plain(pixels, lossy)
    if width % 2 != height % 2 or not columns.any() or not rows.any():
        return 0, 0
    between = min(_middle(columns), _middle(rows))
    edges = [_run(columns), _run(columns[::-1]), _run(rows), _run(rows[::-1])]
    return between, min(edges)


def _plain(pixels: Pixels, lossy: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which columns and which rows are of the middle's grey value."""
    middle = pixels[pixels.shape[0] // 2].astype(np.float32), pixels[:, pixels.shape[1] // 2]
    value = np.median(np.concatenate(middle), axis=0)
    if np.ptp(value) > (GREY if lossy else 0):
        return np.zeros(pixels.shape[1], bool), np.zeros(pixels.shape[0], bool)
    if not lossy:
        same = (pixels == value).all(-1)
        return same.all(0), same.all(1)
    # JPEG keeps lightness at full resolution and smears colour, so only lightness tells lines apart.
    away = np.abs(pixels @ LIGHTNESS - value.mean())
    columns, rows = away.mean(0), away.mean(1)
    most = max(NOISE, PLAIN * float(np.median(np.concatenate([columns, rows]))))
    return columns <= most, rows <= most


def _middle(plain: NDArray[np.bool_]) -> int:
    """Plain lines around the middle, as many on each side (an even number, or an odd one)."""
    half = len(plain) // 2
    after, before = plain[half + len(plain) % 2 :], plain[:half][::-1]
    both = _run(after & before)
    if len(plain) % 2:
        return 2 * both + 1 if plain[half] else 0
    return 2 * both


def _run(plain: NDArray[np.bool_]) -> int:
    """How many lines are plain before the first one that is not."""
    return len(plain) if plain.all() else int(plain.argmin())


def looks_single(pixels: Pixels) -> bool:
    """Whether an image of even sides runs on across its middle, along both axes.

    The middle of a grid without padding is an edge, unless the tiles meet in one plain colour.
    """
    return all(_runs_on(lines) for lines in (pixels, pixels.transpose(1, 0, 2)))


def _runs_on(lines: Pixels) -> bool:
    half, reach = len(lines) // 2, min(8, len(lines) // 2 - 1)
    if reach < 1:
        return False
    near = lines[half - reach - 1 : half + reach + 1].astype(np.float32)
    steps = np.abs(np.diff(near, axis=0)).mean((1, 2))
    return bool(PLAINEST < steps[reach] < SEAM * np.delete(steps, reach).mean())


def join(tiles: Sequence[Pixels]) -> Pixels:
    """Four tiles of one size as one image without padding, row by row."""
    return np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)])
