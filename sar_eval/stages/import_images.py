"""Stage: from a folder of images that another tool drew to generations, stored block by block."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.images.files import decode_image, encode_png, is_lossy, is_transparent, read_file
from sar_eval.images.folder import ImageFolder
from sar_eval.images.grid_detection import looks_single
from sar_eval.images.grids import Grid
from sar_eval.images.listing import shown
from sar_eval.runtime.progress import ProgressCallback, ProgressEvent, no_progress
from sar_eval.spec import RunSpec
from sar_eval.stages.generate import undrawn_blocks
from sar_eval.stages.resume import open_blocks
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row
from sar_eval.types import Draw, Generation, Json

THREADS = 4  # reading and decoding release the GIL


def import_images(
    spec: RunSpec, folder: RunFolder, images: ImageFolder, progress: ProgressCallback = no_progress
) -> list[str]:
    """Store every expected image, or why there is none (lock held, `prepare`d); returns notes.

    Files are stored byte for byte, tiles of a grid as PNG. Missing and unreadable images, wrongly sized
    ones (with `same_size`), and files that are no grids where the others are, become errors, so that the
    run is incomplete and names them. Blocks that are stored already stay.

    Raises:
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    blocks = open_blocks(spec, folder)
    todo = undrawn_blocks("import", spec, folder, blocks, progress, "read")
    total = blocks.draws
    done, failed, transparent = total - sum(map(blocks.draws_in, todo)), 0, 0
    with ThreadPoolExecutor(THREADS) as pool:
        for number in todo:
            draws = blocks[number]
            by_file = [list(same) for _, same in groupby(draws, lambda draw: images.files.get(draw.key))]
            found = [g for some in pool.map(lambda same: _read(same, images), by_file) for g in some]
            _store(spec, folder, number, draws, found)
            transparent += sum("transparent" in g.provenance for g in found)
            failed, done = failed + sum(g.error is not None for g in found), done + len(draws)
            progress(ProgressEvent("import", done, total, failed, 0, len(draws)))
    return [_transparent_note(transparent)] if transparent else []


def _transparent_note(number: int) -> str:
    return (
        f"{number} images are partly transparent: their alpha is dropped, as the official scripts do, so "
        "they are judged in the colours that are stored there"
    )


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
    marks = {"transparent": True} if is_transparent(data) else {}
    if images.grid is None:
        return [_generation(draw, path, pixels, data, marks) for draw in draws]
    tiles = images.grid.cut(pixels)
    return [
        _generation(draw, path, tiles[draw.index], None, marks | {"tile": draw.index}) for draw in draws
    ]


def _generation(
    draw: Draw, path: Path, pixels: NDArray[np.uint8], data: bytes | None, marks: dict[str, Json]
) -> Generation:
    """An image as its file gave it (`data`), or cut out of that and encoded without loss."""
    if bool((pixels == pixels[0, 0]).all()):
        where = shown(path) if data else f"{shown(path)}, tile {draw.index}"
        return Generation(draw.key, draw.seed, error=f"{where} is blank: one colour all over")
    provenance = {"file": shown(path), **marks}
    return Generation(draw.key, draw.seed, image=data or encode_png(pixels), provenance=provenance)


def _decoded(path: Path, images: ImageFolder) -> tuple[bytes, NDArray[np.uint8]]:
    """A file's bytes and pixels; what its header says is looked at before anything is decoded."""
    if path in images.problems:
        raise BadInput(f"{shown(path)}: {images.problems[path]}")
    if (images.grid or images.same_size) and images.sizes[path] != images.size:
        own, usual = ("x".join(map(str, size or ())) for size in (images.sizes[path], images.size))
        raise BadInput(f"{shown(path)} is {own} pixels, most are {usual}")
    try:
        data = read_file(path)
        pixels = decode_image(data)
    except BadInput as error:
        raise BadInput(f"{shown(path)}: {error}") from error
    if images.grid and not _is_such_a_grid(pixels, images.grid, data):
        raise BadInput(f"{shown(path)} is no grid like the others ({images.grid}): a single image?")
    return data, pixels


def _is_such_a_grid(pixels: NDArray[np.uint8], grid: Grid, data: bytes) -> bool:
    is_bare = not grid.padding and grid.frame is None
    return grid.fits(pixels, lossy=is_lossy(data)) and not (is_bare and looks_single(pixels, grid))
