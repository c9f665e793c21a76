"""Grids: the images of one prompt in one file, in rows and columns, cut to the pixel.

torchvision's `make_grid` and `save_image` put `padding` lines (default 2) of one value (default 0) between
the tiles and around them; other tools put them only between, and some put a title or a wide margin around
the whole. DPG-Bench's own script expects 2x2 without padding, and with padding all its crops are shifted.
`images.grid_detection` finds which one a file has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# With JPEG a line counts as uniform up to this share of a typical line's distance from the padding's value.
UNIFORM_SHARE = 0.35
JPEG_NOISE = 2.0  # grey levels; up to this distance from it a line always counts as uniform
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # JPEG's weights of red, green and blue
Pixels = NDArray[np.uint8]
Lines = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Frame:
    """What lies around and between the tiles of a grid of another kind than torchvision's, in pixels."""

    left: int
    top: int
    right: int
    bottom: int
    gap_x: int
    gap_y: int


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of tiles in one image.

    Attributes:
        tile: (width, height) of each.
        padding: lines between them, the same along both axes.
        border: whether the same padding surrounds them.
        rows: of tiles.
        columns: of tiles.
        frame: in place of padding and border, where these cannot tell the layout.
    """

    tile: tuple[int, int]
    padding: int = 0
    border: bool = False
    rows: int = 2
    columns: int = 2
    frame: Frame | None = None

    @property
    def tiles(self) -> int:
        """How many there are."""
        return self.rows * self.columns

    @property
    def around(self) -> Frame:
        """What lies around and between the tiles."""
        edge = self.padding if self.border else 0
        return self.frame or Frame(edge, edge, edge, edge, self.padding, self.padding)

    @property
    def starts(self) -> tuple[list[int], list[int]]:
        """The first column and the first row of every tile."""
        around = self.around
        xs = [around.left + i * (self.tile[0] + around.gap_x) for i in range(self.columns)]
        ys = [around.top + i * (self.tile[1] + around.gap_y) for i in range(self.rows)]
        return xs, ys

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole image."""
        (xs, ys), around = self.starts, self.around
        return xs[-1] + self.tile[0] + around.right, ys[-1] + self.tile[1] + around.bottom

    def cut(self, pixels: Pixels) -> list[Pixels]:
        """The tiles of an image `[H, W, 3]` of this size, row by row."""
        (width, height), (xs, ys) = self.tile, self.starts
        return [pixels[y : y + height, x : x + width] for y in ys for x in xs]

    def fits(self, pixels: Pixels, *, lossy: bool = False) -> bool:
        """Whether an image has this size, and lines of one value where the padding is.

        A frame's margins may hold anything, such as a title.
        """
        if pixels.shape[1::-1] != self.size:
            return False
        columns, rows = self._padding_lines()
        if not columns.any() and not rows.any():
            return True
        (xs, ys), (width, height) = self.starts, self.tile
        inner_x, inner_y = slice(xs[0], xs[-1] + width), slice(ys[0], ys[-1] + height)
        if self.frame is None:
            inner_x = inner_y = slice(None)
        inner = pixels[inner_y, inner_x]
        columns, rows = columns[inner_x], rows[inner_y]
        value = np.median(np.concatenate([inner[:, columns].reshape(-1, 3), inner[rows].reshape(-1, 3)]), 0)
        uniform_columns, uniform_rows = uniform_lines(inner, value, lossy=lossy)
        return bool(uniform_columns[columns].all() and uniform_rows[rows].all())

    def _padding_lines(self) -> tuple[Lines, Lines]:
        """Which columns and which rows are padding (of a frame: those between the tiles)."""
        found = []
        for starts, tile, length in zip(self.starts, self.tile, self.size, strict=True):
            lines = np.ones(length, bool)
            for start in starts:
                lines[start : start + tile] = False
            if self.frame is not None:
                lines[: starts[0]] = lines[starts[-1] + tile :] = False
            found.append(lines)
        return found[0], found[1]

    @property
    def arrangement(self) -> str:
        """Rows and columns, as 2x2."""
        return f"{self.rows}x{self.columns}"

    def describe(self) -> str:
        """Padding and size of the tiles."""
        tile = f"{self.tile[0]}x{self.tile[1]}"
        if (frame := self.frame) is not None:
            sides = f"{frame.left}, {frame.top}, {frame.right} and {frame.bottom} px"
            between = f"{frame.gap_x} and {frame.gap_y} px"
            return f"{sides} left, above, right and below, {between} between, {tile}"
        padding = f"{self.padding} px padding{' and border' if self.border else ''}"
        return f"{padding if self.padding else 'no padding'}, {tile}"

    def __str__(self) -> str:
        # Part of the digest of a run: that of 2x2 grids stays as it was before there were others.
        return self.describe() if self.arrangement == "2x2" else f"{self.arrangement}, {self.describe()}"


def uniform_lines(pixels: Pixels, value: NDArray[np.floating], *, lossy: bool) -> tuple[Lines, Lines]:
    """Whether each column `[W]` and each row `[H]` has one value all along.

    Args:
        pixels: RGB uint8 `[H, W, 3]`.
        value: red, green and blue.
        lossy: the file was a JPEG or lossy WebP, so that lines are only nearly uniform.
    """
    if not lossy:
        exact = np.asarray(value).astype(np.uint8)  # in bytes, as that is faster by far
        same = (pixels == exact) & bool((exact == value).all())
        return same.all(0).all(-1), same.reshape(len(same), -1).all(1)
    # JPEG stores luma at full resolution and chroma at half of it, so only luma is compared.
    distance = np.abs(pixels @ LUMA - np.asarray(value, np.float32) @ LUMA)
    columns, rows = distance.mean(0), distance.mean(1)
    limit = max(JPEG_NOISE, UNIFORM_SHARE * float(np.median(np.concatenate([columns, rows]))))
    return columns <= limit, rows <= limit


def arrangements(number: int) -> Iterator[tuple[int, int]]:
    """Rows and columns that hold so many tiles, the squarest first."""
    pairs = [(rows, number // rows) for rows in range(1, number + 1) if number % rows == 0]
    yield from sorted(pairs, key=lambda pair: abs(pair[0] - pair[1]))


def join_tiles(tiles: Sequence[Pixels]) -> Pixels:
    """One image of four tiles of the same size, row by row, without padding."""
    return np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)])
