"""Stage: from a run folder to plain files, in the layouts that other tools read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.store import Row, RunFolder, storing
from sar_eval.types import Prompt

LAYOUTS = {
    "geneval": "00000/metadata.jsonl and 00000/samples/0000.png, as GenEval's official script reads",
    "folder": "<prompt id>_<index>.png beside manifest.jsonl",
}


def export(folder: RunFolder, layout: str, out: Path) -> int:
    """Write the run's pictures as files and return how many there are.

    Raises:
        BadInput: unknown layout, `out` not empty, or nothing to export.
        StorageFailed: `out` cannot be written.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"unknown layout {layout!r}: {', '.join(LAYOUTS)}")
    with storing(out):
        if out.exists() and any(out.iterdir()):
            raise BadInput(f"{out} is not empty: name a new folder with --out")
        out.mkdir(parents=True, exist_ok=True)
    prompts = folder.read_prompts()
    write = {"geneval": _geneval, "folder": _flat}[layout]
    number = 0
    with storing(out):
        for path in write(folder, prompts, out):
            del path
            number += 1
    if number == 0:
        raise BadInput(f"{folder.path} holds no pictures yet")
    return number


def _pictures(folder: RunFolder) -> Iterator[Row]:
    columns = ["key", "prompt_id", "index", "prompt", "seed", "image"]
    return (row for row in folder.generations.rows(columns) if row["image"] is not None)


def _geneval(folder: RunFolder, prompts: list[Prompt], out: Path) -> Iterator[Path]:
    numbers = {prompt.id: number for number, prompt in enumerate(prompts)}
    for prompt in prompts:
        place = out / f"{numbers[prompt.id]:05d}"
        (place / "samples").mkdir(parents=True)
        metadata = prompt.checks or {"tag": prompt.tag, "prompt": prompt.text}
        (place / "metadata.jsonl").write_text(json.dumps(metadata))
    for row in _pictures(folder):
        path = out / f"{numbers[row['prompt_id']]:05d}" / "samples" / f"{row['index']:04d}.png"
        path.write_bytes(_as_png(row["image"]["bytes"]))
        yield path


def _as_png(data: bytes) -> bytes:
    """The official scripts look for `.png`, so WebP is written anew."""
    if data[8:12] != b"WEBP":
        return data
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _flat(folder: RunFolder, prompts: list[Prompt], out: Path) -> Iterator[Path]:
    tags = {prompt.id: prompt.tag for prompt in prompts}
    with (out / "manifest.jsonl").open("w") as manifest:
        for row in _pictures(folder):
            path = out / row["image"]["path"]
            path.write_bytes(row["image"]["bytes"])
            line = {name: row[name] for name in ("key", "prompt_id", "index", "prompt", "seed")}
            line |= {"file": path.name, "tag": tags[row["prompt_id"]]}
            manifest.write(json.dumps(line) + "\n")
            yield path
