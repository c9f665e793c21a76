"""Pictures that others made: reading them, and finding which file shows which draw."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sar_eval.errors import BadInput
from sar_eval.types import Generation, Json, Prompt

DECODING_THREADS = 4  # decoding lets go of Python's lock, so judges decode ahead of their networks
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LAYOUTS = {
    "geneval": "00000/metadata.jsonl and 00000/samples/*.png",
    "manifest": "manifest.jsonl or manifest.csv with `file` and `prompt_id` or `prompt`",
    "named": "<prompt id>_<index>.png or <prompt id>/<index>.png",
}


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Encoded picture to RGB uint8 [H, W, 3], turned as its EXIF says, without its alpha.

    Raises:
        BadInput: the bytes are no readable picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"unreadable picture: {error}") from error


def read_picture(generation: Generation) -> NDArray[np.uint8]:
    """A generation's picture as RGB uint8 [H, W, 3], if it shows anything.

    Raises:
        BadInput: there is no picture, it is unreadable, or all of one colour.
    """
    if generation.image is None:
        raise BadInput(f"no picture: {generation.error}")
    pixels = decode_image(generation.image)
    if bool((pixels == pixels[0, 0]).all()):
        raise BadInput("blank picture")
    return pixels


@dataclass(slots=True)
class ImageFolder:
    """Which file shows which draw.

    Attributes:
        layout: a name in `LAYOUTS`.
        files: draw key to file.
        size: (width, height) in pixels of most pictures.
        sizes: file to its own size; None where its header cannot be read.
    """

    layout: str
    files: dict[str, Path]
    sizes: dict[Path, tuple[int, int] | None] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """The most common size; the larger one of two equally common."""
        known = Counter(size for size in self.sizes.values() if size is not None)
        return max(known, key=lambda size: (known[size], size), default=(0, 0))

    def digest(self) -> str:
        """SHA-256 (16 hex digits) of the keys and of every file's bytes."""
        told = hashlib.sha256()
        for key, path in sorted(self.files.items()):
            with path.open("rb") as file:
                told.update(f"{key}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return told.hexdigest()[:16]


def find_images(folder: Path, prompts: Sequence[Prompt], images_per_prompt: int) -> ImageFolder:
    """Tell a folder's layout by what lies in it, and give each draw its file.

    Raises:
        BadInput: no such folder, no known layout, or pictures that are nobody's (another suite, more
            pictures of a prompt than asked for).
    """
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}")
    layout = _layout(folder)
    found = {"geneval": _geneval, "manifest": _manifest, "named": _named}[layout](folder, prompts)
    files: dict[str, Path] = {}
    for prompt, index, path in found:
        key = f"{prompt.id}/{index}"
        if key in files:
            raise BadInput(f"{path} and {files[key]} are both picture {index} of prompt {prompt.id!r}")
        if index >= images_per_prompt:
            raise BadInput(
                f"{path} is picture {index} (from 0) of prompt {prompt.id!r}, but {images_per_prompt} "
                "a prompt are expected: say how many there are with --images-per-prompt"
            )
        files[key] = path
    if not files:
        raise BadInput(f"{folder} has the layout {layout}, but no picture of this suite in it")
    return ImageFolder(layout, files, {path: _size(path) for path in files.values()})


def _layout(folder: Path) -> str:
    if any((folder / f"manifest.{kind}").is_file() for kind in ("jsonl", "csv")):
        return "manifest"
    if next(folder.glob("*/metadata.jsonl"), None) is not None:
        return "geneval"
    if next(_pictures(folder), None) is not None or next(_pictures(folder, "*/*"), None) is not None:
        return "named"
    known = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    raise BadInput(f"no pictures found in {folder}; known layouts are {known}")


def _pictures(folder: Path, pattern: str = "*") -> Iterator[Path]:
    return (path for path in sorted(folder.glob(pattern)) if path.suffix.lower() in SUFFIXES)


def _geneval(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    """By what each folder's metadata says, so that the folders' numbers do not matter."""
    by_checks = {_canonical(prompt.checks): prompt for prompt in prompts if prompt.checks is not None}
    by_text = {prompt.text: prompt for prompt in prompts}
    for path in sorted(folder.glob("*/metadata.jsonl")):
        metadata = _json(path.read_text().strip(), str(path))
        prompt = by_checks.get(_canonical(metadata)) or by_text.get(str(metadata.get("prompt")))
        if prompt is None:
            raise BadInput(f"{path} belongs to no prompt of this suite: {metadata.get('prompt')!r}")
        yield from ((prompt, index, file) for index, file in _numbered(path.parent / "samples"))


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Pictures by the number in their name, counted from 0 even where the names are not."""
    files = list(_pictures(folder))
    if odd := [path for path in files if not path.stem.isdecimal()]:
        raise BadInput(f"{odd[0]}: a sample's name must be a number")
    by_number = sorted((int(path.stem), path) for path in files)
    first = 1 if by_number and by_number[0][0] == 1 and by_number[-1][0] == len(by_number) else 0
    return [(number - first, path) for number, path in by_number]


def _manifest(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    by_text = {prompt.text: prompt for prompt in prompts}
    seen: Counter[str] = Counter()
    for where, row in _rows(folder):
        file = folder / str(row.get("file", ""))
        if not row.get("file") or not file.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{where}: no `file` that lies in {folder}")
        if not file.is_file():
            raise BadInput(f"{where}: no file {file}")
        prompt = by_id.get(str(row.get("prompt_id"))) or by_text.get(str(row.get("prompt")))
        if prompt is None:
            raise BadInput(f"{where}: neither `prompt_id` nor `prompt` names a prompt of this suite")
        index = row.get("index")
        place = seen[prompt.id] if index in (None, "") else _whole(index, where)
        seen[prompt.id] += 1
        yield prompt, place, file


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    path = folder / "manifest.jsonl"
    if path.is_file():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{path}:{number}", _json(line, f"{path}:{number}")
    else:
        with (folder / "manifest.csv").open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                yield f"{folder / 'manifest.csv'}:{number}", dict(row)


def _named(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    for path in (*_pictures(folder), *_pictures(folder, "*/*")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        told = re.fullmatch(r"(.+)[_/](\d+)", name)
        if told is None or told[1] not in by_id:
            raise BadInput(f"{path} names no prompt of this suite: expected {LAYOUTS['named']}")
        yield by_id[told[1]], int(told[2]), path


def _canonical(data: Json) -> str:
    return json.dumps(data, sort_keys=True)


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{where} is no JSON object")
    return data


def _whole(value: Any, where: str) -> int:
    if not str(value).isdecimal():
        raise BadInput(f"{where}: `index` is {value!r}, it must be a whole number from 0")
    return int(value)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None  # told as unreadable when the picture is taken in
