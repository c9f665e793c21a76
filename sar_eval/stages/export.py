"""Stage: from a run folder to plain files, in the layouts that other tools read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images.files import decode_image, encode_png
from sar_eval.images.grids import join_tiles
from sar_eval.storage.files import storage_errors
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import Row
from sar_eval.types import Prompt

LAYOUTS = {
    "geneval": "00000/metadata.jsonl and 00000/samples/0000.png, as GenEval's official script reads",
    "folder": "<prompt id>_<index>.png beside manifest.jsonl",
    "dpg": "<prompt id>.png, one image or four as 2x2 without padding, as DPG-Bench's script reads",
}


def export(folder: RunFolder, layout: str, out: Path) -> int:
    """Write the run's images as files and return how many images are in them.

    Raises:
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
    prompts = folder.read_prompts()
    write = {"geneval": _geneval, "folder": _flat, "dpg": _dpg}[layout]
    with storage_errors(out):
        number = sum(write(folder, prompts, out))
    if number == 0:
        raise BadInput(f"{folder.path} holds no images yet")
    return number


def _images(folder: RunFolder) -> Iterator[Row]:
    columns = ["key", "prompt_id", "index", "prompt", "seed", "image"]
    return (row for row in folder.generations.rows(columns) if row["image"] is not None)


def _geneval(folder: RunFolder, prompts: list[Prompt], out: Path) -> Iterator[int]:
    numbers = {prompt.id: number for number, prompt in enumerate(prompts)}
    for prompt in prompts:
        prompt_folder = out / f"{numbers[prompt.id]:05d}"
        (prompt_folder / "samples").mkdir(parents=True)
        metadata = prompt.checks or {"tag": prompt.tag, "prompt": prompt.text}
        (prompt_folder / "metadata.jsonl").write_text(json.dumps(metadata))
    for row in _images(folder):
        path = out / f"{numbers[row['prompt_id']]:05d}" / "samples" / f"{row['index']:04d}.png"
        path.write_bytes(_as_png(row["image"]["bytes"]))
        yield 1


def _as_png(data: bytes) -> bytes:
    """The official scripts look for `.png`, so WebP is written anew."""
    if data[8:12] != b"WEBP":
        return data
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _flat(folder: RunFolder, prompts: list[Prompt], out: Path) -> Iterator[int]:
    tags = {prompt.id: prompt.tag for prompt in prompts}
    with (out / "manifest.jsonl").open("w") as manifest:
        for row in _images(folder):
            path = out / row["image"]["path"]
            path.write_bytes(row["image"]["bytes"])
            line = {name: row[name] for name in ("key", "prompt_id", "index", "prompt", "seed")}
            line |= {"file": path.name, "tag": tags[row["prompt_id"]]}
            manifest.write(json.dumps(line) + "\n")
            yield 1


def _dpg(folder: RunFolder, prompts: list[Prompt], out: Path) -> Iterator[int]:
    """A prompt with fewer images than it should have gets no file: a grid cannot have an empty tile."""
    del prompts
    each = int(folder.read_manifest()["spec"]["images_per_prompt"])
    if each not in (1, 4):
        raise BadInput(f"layout dpg holds 1 or 4 images a prompt, not {each}: use --layout folder")
    for prompt, rows in groupby(_images(folder), lambda row: str(row["prompt_id"])):
        images = [row["image"]["bytes"] for row in sorted(rows, key=lambda row: int(row["index"]))]
        if len(images) == each:
            (out / f"{prompt}.png").write_bytes(_one_file(prompt, images))
            yield each


def _one_file(prompt: str, images: list[bytes]) -> bytes:
    if len(images) == 1 and images[0].startswith(b"\x89PNG"):
        return images[0]
    tiles = [decode_image(data) for data in images]
    if len({tile.shape for tile in tiles}) > 1:
        sizes = ", ".join(f"{tile.shape[1]}x{tile.shape[0]}" for tile in tiles)
        raise BadInput(f"the images of prompt {prompt!r} are of several sizes ({sizes}): no grid")
    return encode_png(tiles[0] if len(tiles) == 1 else join_tiles(tiles))
