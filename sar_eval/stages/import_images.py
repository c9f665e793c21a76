"""Stage: from a folder of images that another tool drew to generations, stored block by block."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.images.files import ImageFolder, decode_image, encode_png, is_lossy
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent, no_progress
from sar_eval.spec import RunSpec
from sar_eval.stages.generate import undrawn_blocks
from sar_eval.stages.resume import open_blocks
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row
from sar_eval.types import Draw, Generation

THREADS = 4  # reading and decoding release the GIL


def import_images(
    spec: RunSpec, folder: RunFolder, images: ImageFolder, progress: ProgressCallback = no_progress
) -> None:
    """Store every expected image, or why there is none (lock held, `prepare`d).

    Files are stored byte for byte, tiles of a grid as PNG. Missing, unreadable and wrongly sized
    images, and files that are no grids where the others are, become errors, so that the run is
    incomplete and names them. Blocks that are stored already stay.

    Raises:
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    blocks = open_blocks(spec, folder)
    todo = undrawn_blocks("import", spec, folder, blocks, progress, "read")
    total = blocks.draws
    done, failed = total - sum(map(blocks.draws_in, todo)), 0
    with ThreadPoolExecutor(THREADS) as pool:
        for number in todo:
            draws = blocks[number]
            by_file = [list(same) for _, same in groupby(draws, lambda draw: images.files.get(draw.key))]
            found = [g for some in pool.map(lambda same: _read(same, images), by_file) for g in some]
            _store(spec, folder, number, draws, found)
            failed, done = failed + sum(g.error is not None for g in found), done + len(draws)
            progress(ProgressEvent("import", done, total, failed, 0, len(draws)))


def _store(
    spec: RunSpec, folder: RunFolder, block: int, draws: Sequence[Draw], found: Sequence[Generation]
) -> None:
    rows = [generation_row(draw.prompt, g, spec.digest) for draw, g in zip(draws, found, strict=True)]
    folder.write_generations(block, rows, spec.digest)


def _read(draws: Sequence[Draw], images: ImageFolder) -> list[Generation]:
    """The draws that one file shows (or that none does)."""
    path = images.files.get(draws[0].key)
    if path is None:
        missing = "missing: the folder has no such image"
        return [Generation(draw.key, draw.seed, error=missing) for draw in draws]
    try:
        data, pixels = _decoded(path, images)
    except BadInput as error:
        return [Generation(draw.key, draw.seed, error=str(error)) for draw in draws]
    if images.grid is None:
        return [_generation(draw, path, pixels, data) for draw in draws]
    tiles = images.grid.cut(pixels)
    return [_generation(draw, path, tiles[draw.index]) for draw in draws]


def _generation(draw: Draw, path: Path, pixels: NDArray[np.uint8], data: bytes | None = None) -> Generation:
    """An image as its file gave it, or cut out of that and encoded without loss."""
    if bool((pixels == pixels[0, 0]).all()):
        where = str(path) if data else f"{path}, tile {draw.index}"
        return Generation(draw.key, draw.seed, error=f"{where} is blank: one colour all over")
    provenance = {"file": str(path)} if data else {"file": str(path), "tile": draw.index}
    return Generation(draw.key, draw.seed, image=data or encode_png(pixels), provenance=provenance)


def _decoded(path: Path, images: ImageFolder) -> tuple[bytes, NDArray[np.uint8]]:
    try:
        data = path.read_bytes()
        pixels = decode_image(data)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    if images.sizes[path] != images.size:
        own = "x".join(map(str, images.sizes[path] or ()))
        raise BadInput(f"{path} is {own} pixels, most are {images.size[0]}x{images.size[1]}")
    if images.grid and not images.grid.fits(pixels, lossy=is_lossy(data)):
        raise BadInput(f"{path} is no grid like the others ({images.grid}): a single image?")
    return data, pixels
