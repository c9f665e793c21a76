"""Finds out how one file shows several images: in which rows and columns, with what between and around.

Three readings are tried, and a file that fits none of them is not cut:

1. **Lattice**: lines of one value that leave equal tiles with equal gaps, whatever the margins (a title, a
   wide frame). It counts where the tiles reach their edges; else the lines may be part of the images.
2. **Padding** as torchvision puts it, 2x2: a number `between` of lines of one value around the middle of
   both axes, and a number `border` along each edge. Tiles may have such lines themselves: where all have
   equal margins m, the counts are p + 2m and p + m, from which p follows.
3. **Bare**: tiles that touch each other, perhaps inside a margin. The seams must be edges, or (2x2, 3x3)
   lie where nothing is; an image that goes on across a seam is no grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_eval.images.grids import LUMA, Frame, Grid, Lines, Pixels, arrangements, uniform_lines

MAX_PADDING = 16  # lines beside tiles that do not reach their edges; a wider area belongs to the images
TOUCHING_HALF = 0.5  # the same for padding as torchvision puts it
TOUCHING = 0.75  # share of the tiles' edges that must show something else than the padding
COVERED = 0.5  # of each side by the tiles of a lattice, at least
VALUES = 4  # values of padding that are tried, the commonest first
MIN_STEP = 0.5  # grey levels from line to line; below it the comparison says nothing
MIN_SEAM_RATIO = 2.0  # of the step from tile to tile to the steps beside it
MIN_SPREAD = 8.0  # grey levels along a line; below it the line is nearly uniform
MAX_SHARED = 0.6  # of the spread along a line: a larger step to the next line means that they differ
SEAM_REACH = 8  # lines on each side of a seam that it is compared with
EDGE, SMOOTH, PLAIN, NOISY = "edge", "smooth", "plain", "noisy"  # what an image does across a seam
Span = tuple[int, int, int]  # first line of the first tile, lines of a tile, lines between two


@dataclass(frozen=True, slots=True)
class Reading:
    """What one file shows: a grid, or why it is none that can be cut.

    Attributes:
        grid: None where there is none.
        problem: what was seen instead.
        is_single: the file looks like one image.
        is_certain: lines or edges show where the tiles are; else only nothing speaks against them.
    """

    grid: Grid | None = None
    problem: str = ""
    is_single: bool = False
    is_certain: bool = False


def read_grid(
    pixels: Pixels, number: int, *, lossy: bool = False, forced: tuple[int, int] | None = None
) -> Reading:
    """How a file shows `number` images.

    Args:
        pixels: RGB uint8 `[H, W, 3]`.
        number: of tiles.
        lossy: the file was a JPEG or lossy WebP, so that padding is only nearly uniform.
        forced: rows and columns that the user is sure of; the tiles' contents are then not looked at.
    """
    shapes = [forced] if forced else list(arrangements(number))
    values = list(_padding_values(pixels, lossy))
    lattices = {grid for shape in shapes for grid in _lattices(pixels, shape, values, lossy)}
    if len(lattices) == 1:
        return Reading(lattices.pop(), is_certain=True)
    if lattices:
        return Reading(problem=f"can be cut in {len(lattices)} ways")
    if (2, 2) in shapes and (grid := _padded(pixels, lossy)):
        return Reading(grid, is_certain=True)
    if framed := _framed(pixels, shapes, lossy):
        return Reading(framed, is_certain=True)
    if problem := _half_found(pixels, shapes, values, lossy):
        return Reading(problem=problem)
    return _bare(pixels, shapes, is_forced=forced is not None)


def _padded(pixels: Pixels, lossy: bool) -> Grid | None:
    """The 2x2 grid by its padding, if at least half of the edges are those of tiles and not of margins."""
    grid = detect_grid(pixels, lossy=lossy)
    if grid is None or not grid.padding:
        return None
    value = np.median(pixels[:, pixels.shape[1] // 2].astype(np.float64), axis=0)
    return grid if _touching(pixels, grid, value, lossy) >= TOUCHING_HALF else None


def detect_grid(pixels: Pixels, *, lossy: bool = False) -> Grid | None:
    """The 2x2 grid of an image by its padding, or None if it cannot be cut into 2x2.

    Any image of even sides can be a grid without padding; its content is not checked (`looks_single` is).
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
    """Number of lines of one value around the middle of both axes, and along every edge.

    The value is that of the image's middle. The first count has the parity of the sides, so that the
    lines are centred; both are 0 where the parities of width and height differ.
    """
    height, width = pixels.shape[:2]
    middle = np.concatenate([pixels[height // 2], pixels[:, width // 2]])
    columns, rows = uniform_lines(pixels, np.median(middle, axis=0), lossy=lossy)
    if width % 2 != height % 2 or not columns.any() or not rows.any():
        return 0, 0
    between = min(_centered_run(columns), _centered_run(rows))
    edges = [_leading_run(lines) for lines in (columns, columns[::-1], rows, rows[::-1])]
    return between, min(edges)


def looks_single(pixels: Pixels, grid: Grid | None = None) -> bool:
    """Whether an image goes on across all seams of a grid without padding (by default of 2x2)."""
    if grid is None:
        grid = Grid((pixels.shape[1] // 2, pixels.shape[0] // 2))
    seams = list(_seams(pixels, grid))
    return bool(seams) and all(seam == SMOOTH for seam in seams)


def _centered_run(uniform: Lines) -> int:
    """Number of uniform lines around the middle, equally many on each side."""
    half = len(uniform) // 2
    after, before = uniform[half + len(uniform) % 2 :], uniform[:half][::-1]
    one_side = _leading_run(after & before)
    if len(uniform) % 2:
        return 2 * one_side + 1 if uniform[half] else 0
    return 2 * one_side


def _leading_run(uniform: Lines) -> int:
    """Number of uniform lines before the first other one."""
    return len(uniform) if uniform.all() else int(uniform.argmin())


def _padding_values(pixels: Pixels, lossy: bool) -> Iterator[NDArray[np.float64]]:
    """Values that padding may have: of uniform lines, or (lossy) of lines where padding often is."""
    if lossy:
        height, width = pixels.shape[:2]
        lines = [pixels[:, x] for x in (width // 2, 0, width - 1)]
        lines += [pixels[y] for y in (height // 2, 0, height - 1)]
        yield from _distinct(np.median(line, axis=0) for line in lines)
        return
    columns = pixels[0][(pixels == pixels[:1]).all(0).all(-1)]
    rows = pixels[:, 0][(pixels == pixels[:, :1]).reshape(len(pixels), -1).all(1)]
    found, counts = np.unique(np.concatenate([columns, rows]), axis=0, return_counts=True)
    yield from (found[i].astype(np.float64) for i in np.argsort(-counts, kind="stable")[:VALUES])


def _distinct(values: Iterable[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    kept: list[NDArray[np.float64]] = []
    for value in values:
        if all(abs((value - other) @ LUMA) > SEAM_REACH for other in kept):
            kept.append(value)
    return kept


def _lattices(
    pixels: Pixels, shape: tuple[int, int], values: Iterable[NDArray[np.float64]], lossy: bool
) -> Iterator[Grid]:
    """Every grid of rows and columns that lines of one value cut into equal, touching tiles."""
    for value in values:
        for xs, ys in set(_spans(pixels, shape, value, lossy)):
            grid = _grid_of(pixels, shape, xs, ys)
            if _touching(pixels, grid, value, lossy) >= TOUCHING:
                yield _as_torchvision(grid)


def _spans(
    pixels: Pixels, shape: tuple[int, int], value: NDArray[np.float64], lossy: bool
) -> Iterator[tuple[Span, Span]]:
    """Columns and rows of tiles; a title beside them may hide the lines of one axis at first."""
    columns, rows = uniform_lines(pixels, value, lossy=lossy)
    for ys in _windows(rows, shape[0]):
        inner = pixels[ys[0] : _end(ys, shape[0])]
        for xs in _windows(uniform_lines(inner, value, lossy=lossy)[0], shape[1]):
            yield xs, ys
    for xs in _windows(columns, shape[1]):
        inner = pixels[:, xs[0] : _end(xs, shape[1])]
        for ys in _windows(uniform_lines(inner, value, lossy=lossy)[1], shape[0]):
            yield xs, ys


def _end(span: Span, number: int) -> int:
    start, tile, gap = span
    return start + number * tile + (number - 1) * gap


def _windows(uniform: Lines, number: int) -> Iterator[Span]:
    """Runs of other lines, `number` in a row, that are equally long and equally far apart."""
    changes = np.flatnonzero(np.diff(np.concatenate([[True], uniform, [True]]).astype(np.int8)))
    starts, ends = changes[::2], changes[1::2]
    for first in range(len(starts) - number + 1):
        last = first + number
        lengths, gaps = (
            ends[first:last] - starts[first:last],
            starts[first + 1 : last] - ends[first : last - 1],
        )
        covers = number * lengths[0] >= COVERED * len(uniform)
        if covers and (lengths == lengths[0]).all() and (gaps == gaps[:1]).all():
            yield int(starts[first]), int(lengths[0]), int(gaps[0]) if number > 1 else 0


def _grid_of(pixels: Pixels, shape: tuple[int, int], xs: Span, ys: Span) -> Grid:
    height, width = pixels.shape[:2]
    right, bottom = width - _end(xs, shape[1]), height - _end(ys, shape[0])
    frame = Frame(xs[0], ys[0], right, bottom, xs[2], ys[2])
    return Grid((xs[1], ys[1]), rows=shape[0], columns=shape[1], frame=frame)


def _touching(pixels: Pixels, grid: Grid, value: NDArray[np.float64], lossy: bool) -> float:
    """Share of the edges of all tiles that are not lines of the padding's value."""
    touching = []
    for tile in grid.cut(pixels):
        columns, rows = uniform_lines(tile, value, lossy=lossy)
        touching += [not lines[end] for lines in (columns, rows) for end in (0, -1)]
    return float(np.mean(touching))


def _as_torchvision(grid: Grid) -> Grid:
    """The same grid by its padding, where all gaps are equal and all sides are like them, or nothing."""
    around = grid.around
    sides = {around.left, around.top, around.right, around.bottom}
    gaps = {gap for gap, n in ((around.gap_x, grid.columns), (around.gap_y, grid.rows)) if n > 1}
    if len(gaps) > 1 or sides not in (gaps, {0}):
        return grid
    return Grid(grid.tile, gaps.pop(), sides != {0}, grid.rows, grid.columns)


def _half_found(
    pixels: Pixels, shapes: Iterable[tuple[int, int]], values: list[NDArray[np.float64]], lossy: bool
) -> str:
    """What is contradictory about lines of one value: they cut one axis and not the other."""
    turned = pixels.transpose(1, 0, 2)
    for rows, columns in shapes:
        if rows == 1 or columns == 1:
            continue
        for value in values:
            in_x = _cuts_columns(pixels, (rows, columns), value, lossy)
            in_y = _cuts_columns(turned, (columns, rows), value, lossy)
            if in_x != in_y:
                return "padding found in x, not in y" if in_x else "padding found in y, not in x"
    return ""


def _cuts_columns(pixels: Pixels, shape: tuple[int, int], value: NDArray[np.float64], lossy: bool) -> bool:
    """Whether lines of a value separate columns of tiles that reach the lines in every row."""
    rows, columns = shape
    height = len(pixels) // rows
    bands = [pixels[row * height : (row + 1) * height] for row in range(rows)]
    for start, tile, gap in _windows(uniform_lines(pixels, value, lossy=lossy)[0], columns):
        firsts = [start + i * (tile + gap) for i in range(columns)]
        lines = [band[:, x] for band in bands for first in firsts for x in (first, first + tile - 1)]
        touching = [not uniform_lines(line[:, None], value, lossy=lossy)[0][0] for line in lines]
        if gap and np.mean(touching) >= TOUCHING:
            return True
    return False


def _bare(pixels: Pixels, shapes: list[tuple[int, int]], *, is_forced: bool) -> Reading:
    """The arrangement without padding that the seams speak for."""
    height, width = pixels.shape[:2]
    grids = [grid for r, c in shapes if (grid := _divided(width, height, r, c))]
    if not grids:
        return Reading(problem="cannot be cut, and shows no padding")
    if is_forced:
        return Reading(grids[0], is_certain=True)
    seams = {grid: list(_seams(pixels, grid)) for grid in grids}
    if certain := [grid for grid in grids if all(seam == EDGE for seam in seams[grid])]:
        return Reading(max(certain, key=lambda grid: len(seams[grid])), is_certain=True)
    square = next((grid for grid in grids if grid.rows == grid.columns), None)
    if square and 1 / 2 <= width / height <= 2 and {SMOOTH, NOISY}.isdisjoint(seams[square]):
        return Reading(square)
    is_noise = all(SMOOTH not in found for found in seams.values())
    problem = "no edges that tell where to cut" if is_noise else _without_seams(width, height)
    return Reading(problem=problem, is_single=not is_noise)


def _divided(width: int, height: int, rows: int, columns: int) -> Grid | None:
    """The grid without padding, if the sides can be divided."""
    tile = width // columns, height // rows
    whole = width % columns == height % rows == 0
    return Grid(tile, rows=rows, columns=columns) if whole and min(tile) > 1 else None


def _framed(pixels: Pixels, shapes: list[tuple[int, int]], lossy: bool) -> Grid | None:
    """The grid without padding inside a margin of one value."""
    columns, rows = uniform_lines(pixels, pixels[0, 0].astype(np.float64), lossy=lossy)
    if not (columns[0] and columns[-1] and rows[0] and rows[-1]) or columns.all() or rows.all():
        return None
    (left, right), (top, bottom) = (np.flatnonzero(~lines)[[0, -1]] for lines in (columns, rows))
    inner = pixels[top : bottom + 1, left : right + 1]
    reading = _bare(inner, shapes, is_forced=False)
    if reading.grid is None or not reading.is_certain:
        return None
    bare = reading.grid
    sides = int(left), int(top), pixels.shape[1] - int(right) - 1, pixels.shape[0] - int(bottom) - 1
    grid = Grid(bare.tile, rows=bare.rows, columns=bare.columns, frame=Frame(*sides, 0, 0))
    return grid if _touching(pixels, grid, pixels[0, 0].astype(np.float64), lossy) >= TOUCHING else None


def _without_seams(width: int, height: int) -> str:
    ratio = max(width, height) / min(width, height)
    if ratio < 2:
        return "no edge in the middle: a single image?"
    shape = "wide as high: a row" if width > height else "high as wide: a column"
    return f"{ratio:.1f} times as {shape} of {round(ratio)}?"


def _seams(pixels: Pixels, grid: Grid) -> Iterator[str]:
    """What the image does across every seam of a grid without padding."""
    for lines, tile, number in (
        (pixels.transpose(1, 0, 2), grid.tile[0], grid.columns),
        (pixels, grid.tile[1], grid.rows),
    ):
        yield from (_seam(lines, tile * i) for i in range(1, number))


def _seam(lines: Pixels, at: int) -> str:
    """Whether lines `at - 1` and `at` are an edge, one image, nearly uniform, or unlike like all others."""
    reach = min(SEAM_REACH, at - 1, len(lines) - at - 1)
    if reach < 1:
        return PLAIN
    near = lines[at - reach - 1 : at + reach + 1].astype(np.float32)
    steps = np.abs(np.diff(near, axis=0)).mean((1, 2))
    step, beside = float(steps[reach]), float(np.delete(steps, reach).mean())
    if step >= max(MIN_STEP, MIN_SEAM_RATIO * beside):
        return EDGE
    spread = float(near[reach : reach + 2].std(1).mean())
    if spread < MIN_SPREAD:
        return PLAIN
    return SMOOTH if step < MAX_SHARED * spread else NOISY
