"""Stage: from a run folder to plain files, in the layouts that other tools read."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path

from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images.files import decode_image, encode_png
from sar_eval.images.grids import join_tiles
from sar_eval.runtime.blocks import Blocks
from sar_eval.spec import RunSpec
from sar_eval.stages.resume import check_blocks, check_keys, check_spec, open_blocks, spec_digests
from sar_eval.storage.files import storage_errors
from sar_eval.storage.parts import Part
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import image_suffix
from sar_eval.types import Draw

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
LAYOUTS = {
    "geneval": "00000/metadata.jsonl and 00000/samples/0000.png, as GenEval's official script reads",
    "folder": "<prompt id>_<index>.png beside manifest.jsonl",
    "dpg": "<prompt id>.png, one image or four as 2x2 without padding, as DPG-Bench's script reads",
}


def export(folder: RunFolder, layout: str, out: Path) -> int:
    """Write the run's images as files and return how many images are in them.

    Raises:
        SpecMismatch: it holds images of another run.
        BadInput: unknown layout, `out` not empty, nothing to export, or images that the layout cannot
            hold (`dpg`: neither one nor four a prompt, or four of several sizes).
        StorageFailed: `out` cannot be written.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"unknown layout {layout!r}: {', '.join(LAYOUTS)}")
    with storage_errors(out):
        if out.exists() and any(out.iterdir()):
            raise BadInput(f"{out} is not empty: name a new folder with --out")
        out.mkdir(parents=True, exist_ok=True)
    spec = RunSpec.from_json(folder.read_manifest().spec, str(folder.path / "run.json"))
    blocks, digests = open_blocks(spec, folder), spec_digests(spec, folder)
    write = {"geneval": _geneval, "folder": _flat, "dpg": _dpg}[layout]
    with storage_errors(out):
        number = sum(write(folder, blocks, digests, out))
    if number == 0:
        raise BadInput(f"{folder.path} holds no images yet")
    return number


def _images(folder: RunFolder, blocks: Blocks, digests: Collection[str]) -> Iterator[tuple[Draw, bytes]]:
    """Every stored image with its draw. Names come from the suite, never from what a part says."""
    parts = folder.generations.parts()
    check_blocks(parts.values(), blocks)
    for number, part in parts.items():
        check_spec(part, folder.generations.facts(part), digests)
        found = folder.generations.read(part.path, ["key", "image"]).to_pydict()
        check_keys(part, found["key"], blocks.keys(number))
        for draw, image in zip(blocks[number], found["image"], strict=True):
            if image is not None and image["bytes"]:
                check_image(part, draw, image["bytes"])
                yield draw, image["bytes"]


def check_image(part: Part, draw: Draw, data: bytes) -> None:
    """Refuse to write what is no image.

    Raises:
        BadInput: the bytes are neither PNG nor JPEG nor WebP.
    """
    webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    if not (webp or data.startswith((PNG, JPEG))):
        raise BadInput(f"{part.path}: what is stored for {draw.key} is neither PNG, JPEG nor WebP")


def _geneval(folder: RunFolder, blocks: Blocks, digests: Collection[str], out: Path) -> Iterator[int]:
    numbers = {}
    for number, prompt in enumerate(blocks.prompts):
        numbers[prompt.id] = number
        prompt_folder = out / f"{number:05d}"
        (prompt_folder / "samples").mkdir(parents=True)
        metadata = prompt.checks or {"tag": prompt.tag, "prompt": prompt.text}
        (prompt_folder / "metadata.jsonl").write_text(json.dumps(metadata), "utf-8")
    for draw, data in _images(folder, blocks, digests):
        path = out / f"{numbers[draw.prompt.id]:05d}" / "samples" / f"{draw.index:04d}.png"
        path.write_bytes(_as_png(data))
        yield 1


def _as_png(data: bytes) -> bytes:
    """The official scripts look for `.png`, so other formats are written anew."""
    if data.startswith(PNG):
        return data
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data), formats=("JPEG", "WEBP")) as image:
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _flat(folder: RunFolder, blocks: Blocks, digests: Collection[str], out: Path) -> Iterator[int]:
    with (out / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for draw, data in _images(folder, blocks, digests):
            path = out / f"{draw.prompt.id}_{draw.index}.{image_suffix(data)}"
            path.write_bytes(data)
            line = {"key": draw.key, "prompt_id": draw.prompt.id, "index": draw.index}
            line |= {
                "prompt": draw.prompt.text,
                "seed": draw.seed,
                "file": path.name,
                "tag": draw.prompt.tag,
            }
            manifest.write(json.dumps(line) + "\n")
            yield 1


def _dpg(folder: RunFolder, blocks: Blocks, digests: Collection[str], out: Path) -> Iterator[int]:
    """A prompt with fewer images than it should have gets no file: a grid cannot have an empty tile."""
    each = blocks.images_per_prompt
    if each not in (1, 4):
        raise BadInput(f"layout dpg holds 1 or 4 images a prompt, not {each}: use --layout folder")
    for prompt, drawn in groupby(_images(folder, blocks, digests), lambda found: found[0].prompt.id):
        images = [data for _, data in drawn]
        if len(images) == each:
            (out / f"{prompt}.png").write_bytes(_one_file(prompt, images))
            yield each


def _one_file(prompt: str, images: list[bytes]) -> bytes:
    if len(images) == 1 and images[0].startswith(PNG):
        return images[0]
    tiles = [decode_image(data) for data in images]
    if len({tile.shape for tile in tiles}) > 1:
        sizes = ", ".join(f"{tile.shape[1]}x{tile.shape[0]}" for tile in tiles)
        raise BadInput(f"the images of prompt {prompt!r} are of several sizes ({sizes}): no grid")
    return encode_png(tiles[0] if len(tiles) == 1 else join_tiles(tiles))
