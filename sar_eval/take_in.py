"""Stage: from a folder of pictures that another tool drew to generations, stored block by block."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sar_eval.blocks import Event, Watch, ignore, make_blocks
from sar_eval.errors import BadInput
from sar_eval.images import ImageFolder, decode_image
from sar_eval.spec import RunSpec
from sar_eval.store import RunFolder, generation_row, storing
from sar_eval.types import Draw, Generation

THREADS = 4  # reading and decoding let go of Python's lock


def take_in(spec: RunSpec, folder: RunFolder, images: ImageFolder, watch: Watch = ignore) -> None:
    """Store every expected picture byte for byte, or why there is none (lock held, `prepare`d).

    Missing, unreadable and wrongly sized pictures become errors, so that the run is incomplete and
    names them. Blocks that are stored already stay.

    Raises:
        StorageFailed: the disk is full or read-only; what is stored stays.
    """
    blocks = make_blocks(folder.read_prompts(), spec)
    with storing(folder.path):
        folder.generations.clean()
    finished = folder.generations.finished({i: {d.key for d in b} for i, b in enumerate(blocks)})
    total, done, failed = sum(map(len, blocks)), sum(len(blocks[i]) for i in finished), 0
    watch(Event("take in", done, total))
    with ThreadPoolExecutor(THREADS) as pool:
        for number, draws in enumerate(blocks):
            if number in finished:
                continue
            found = list(pool.map(lambda draw: _read(draw, images), draws))
            _store(spec, folder, number, draws, found)
            failed, done = failed + sum(g.error is not None for g in found), done + len(draws)
            watch(Event("take in", done, total, failed, 0, len(draws)))


def _store(
    spec: RunSpec, folder: RunFolder, block: int, draws: Sequence[Draw], found: Sequence[Generation]
) -> None:
    rows = [generation_row(draw.prompt, g, spec.digest) for draw, g in zip(draws, found, strict=True)]
    folder.generations.write(block, rows)


def _read(draw: Draw, images: ImageFolder) -> Generation:
    try:
        return Generation(draw.key, draw.seed, image=_checked(draw.key, images))
    except BadInput as error:
        return Generation(draw.key, draw.seed, error=str(error))


def _checked(key: str, images: ImageFolder) -> bytes:
    path = images.files.get(key)
    if path is None:
        raise BadInput("missing: the folder has no such picture")
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
    if bool((pixels == pixels[0, 0]).all()):
        raise BadInput(f"{path} is blank: one colour all over")
    return data
