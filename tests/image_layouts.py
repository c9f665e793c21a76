"""Images that show several others, as tools lay them out."""

import numpy as np

# Gaps (x, y) and margins (left, above, right, below) in pixels.
BARE, PADDED = (0, 0, 0, 0, 0, 0), (2, 2, 2, 2, 2, 2)


def lay_out(tiles, rows: int, columns: int, around=BARE, value=0) -> np.ndarray:
    """Tiles with gaps (x, y) and margins (left, above, right, below) of one value."""
    gap_x, gap_y, left, top, right, bottom = around
    height, width = tiles[0].shape[:2]
    shape = (
        top + rows * height + (rows - 1) * gap_y + bottom,
        left + columns * width + (columns - 1) * gap_x,
    )
    image = np.full((*shape[:1], shape[1] + right, 3), value, np.uint8)
    for number, tile in enumerate(tiles):
        y = top + number // columns * (height + gap_y)
        x = left + number % columns * (width + gap_x)
        image[y : y + height, x : x + width] = tile
    return image


def with_title(image: np.ndarray, side: str, *, text: bool = False, value: int = 255) -> np.ndarray:
    """A bar of 40 pixels, with something like letters on it."""
    turns = {"left": 3, "top": 0, "right": 1, "bottom": 2}[side]
    turned = np.rot90(image, turns)
    bar = np.full((40, turned.shape[1], 3), value, np.uint8)
    if text:
        bar[12:28, 10:-10][np.random.default_rng(0).random((16, bar.shape[1] - 20)) < 0.4] = 255 - value
    return np.rot90(np.concatenate([bar, turned]), -turns)
