"""2x2 grids: four images of one prompt in one file, with or without padding, detected and cut exactly.

torchvision's `make_grid` and `save_image` put `padding` lines (default 2) of one grey value (default
0) between the tiles and around them; other tools put them only between. DPG-Bench's own script
expects no padding, and with padding all its crops are shifted.

Padding is detected as lines of one grey value: a number `between` around the middle of both axes, and a
number `border` along each edge. Lines of the tiles themselves may be uniform too, so either count can be
too high: where all tiles have equal margins m, the counts are p + 2m and p + m, from which p follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PADDING = 16  # lines; a wider uniform area belongs to the images
# With JPEG a line counts as uniform up to this share of a typical line's distance from the padding's value.
UNIFORM_SHARE = 0.35
JPEG_NOISE = 2.0  # grey levels; up to this distance from it a line always counts as uniform
MAX_JPEG_COLOR = 40.0  # largest difference between the channels of grey padding after JPEG
MIN_SEAM_RATIO = 2.0  # of the step from tile to tile to the steps beside it
MIN_STEP = 0.5  # grey levels; below it the comparison says nothing
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # JPEG's weights of red, green and blue
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of four tiles in one image.

    Attributes:
        tile: (width, height) of each.
        padding: lines between them.
        border: whether the same padding surrounds them.
    """

    tile: tuple[int, int]
    padding: int = 0
    border: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole image."""
        extra = self.padding * (3 if self.border else 1)
        return 2 * self.tile[0] + extra, 2 * self.tile[1] + extra

    def cut(self, pixels: Pixels) -> list[Pixels]:
        """The four tiles of an image `[H, W, 3]` of this size, row by row."""
        width, height = self.tile
        first = self.padding if self.border else 0
        xs, ys = ((first, first + side + self.padding) for side in self.tile)
        return [pixels[y : y + height, x : x + width] for y in ys for x in xs]

    def fits(self, pixels: Pixels, *, lossy: bool = False) -> bool:
        """Whether an image has this size, and this padding (or more uniform lines)."""
        if pixels.shape[1::-1] != self.size:
            return False
        between, border = count_uniform_lines(pixels, lossy=lossy) if self.padding else (0, 0)
        return between >= self.padding and (not self.border or border >= self.padding)

    def __str__(self) -> str:
        padding = f"{self.padding} px padding{' and border' if self.border else ''}"
        return f"{padding if self.padding else 'no padding'}, {self.tile[0]}x{self.tile[1]}"


def detect_grid(pixels: Pixels, *, lossy: bool = False) -> Grid | None:
    """The grid of an image, or None if it cannot be cut into 2x2.

    Any image of even sides can be a grid without padding; its content is not checked (`looks_single` is).

    Args:
        pixels: RGB uint8 `[H, W, 3]`.
        lossy: the file was a JPEG or lossy WebP, so that padding is only nearly uniform.
    """
    height, width = pixels.shape[:2]
    between, border = count_uniform_lines(pixels, lossy=lossy)
    padding = between if border == 0 else min(between, max(0, 2 * border - between))
    extra = padding * (3 if border else 1)
    if padding > MAX_PADDING or any((side - extra) % 2 or side - extra < 2 for side in (width, height)):
        padding = extra = 0
    if not padding and (width % 2 or height % 2):
        return None
    return Grid(((width - extra) // 2, (height - extra) // 2), padding, bool(padding and border))


def count_uniform_lines(pixels: Pixels, *, lossy: bool = False) -> tuple[int, int]:
    """Number of lines of one grey value around the middle of both axes, and along every edge.

    The value is that of the image's middle. The first count has the parity of the sides, so that the
    lines are centred; both are 0 where the parities of width and height differ.
    """
    height, width = pixels.shape[:2]
    columns, rows = _uniform_lines(pixels, lossy)
    if width % 2 != height % 2 or not columns.any() or not rows.any():
        return 0, 0
    between = min(_centered_run(columns), _centered_run(rows))
    edges = [_leading_run(lines) for lines in (columns, columns[::-1], rows, rows[::-1])]
    return between, min(edges)


def _uniform_lines(pixels: Pixels, lossy: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each column `[W]` and each row `[H]` has the grey value of the image's middle."""
    middle = pixels[pixels.shape[0] // 2].astype(np.float32), pixels[:, pixels.shape[1] // 2]
    value = np.median(np.concatenate(middle), axis=0)
    if np.ptp(value) > (MAX_JPEG_COLOR if lossy else 0):
        return np.zeros(pixels.shape[1], bool), np.zeros(pixels.shape[0], bool)
    if not lossy:
        same = (pixels == value).all(-1)
        return same.all(0), same.all(1)
    # JPEG stores luma at full resolution and chroma at half of it, so only luma is compared.
    distance = np.abs(pixels @ LUMA - value.mean())
    columns, rows = distance.mean(0), distance.mean(1)
    limit = max(JPEG_NOISE, UNIFORM_SHARE * float(np.median(np.concatenate([columns, rows]))))
    return columns <= limit, rows <= limit


def _centered_run(uniform: NDArray[np.bool_]) -> int:
    """Number of uniform lines around the middle, equally many on each side."""
    half = len(uniform) // 2
    after, before = uniform[half + len(uniform) % 2 :], uniform[:half][::-1]
    one_side = _leading_run(after & before)
    if len(uniform) % 2:
        return 2 * one_side + 1 if uniform[half] else 0
    return 2 * one_side


def _leading_run(uniform: NDArray[np.bool_]) -> int:
    """Number of uniform lines before the first other one."""
    return len(uniform) if uniform.all() else int(uniform.argmin())


def looks_single(pixels: Pixels) -> bool:
    """Whether an image of even sides is continuous across its middle, along both axes.

    The middle of a grid without padding is an edge, unless the tiles meet in one uniform colour.
    """
    return all(_is_continuous(lines) for lines in (pixels, pixels.transpose(1, 0, 2)))


def _is_continuous(lines: Pixels) -> bool:
    half, reach = len(lines) // 2, min(8, len(lines) // 2 - 1)
    if reach < 1:
        return False
    near = lines[half - reach - 1 : half + reach + 1].astype(np.float32)
    steps = np.abs(np.diff(near, axis=0)).mean((1, 2))
    return bool(MIN_STEP < steps[reach] < MIN_SEAM_RATIO * np.delete(steps, reach).mean())


def join_tiles(tiles: Sequence[Pixels]) -> Pixels:
    """One image of four tiles of the same size, row by row, without padding."""
    return np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)])
