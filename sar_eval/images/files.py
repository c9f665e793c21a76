"""Reads image files, and matches the files of a folder to draws."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sar_eval.errors import BadInput
from sar_eval.images.grids import Grid, detect_grid, looks_single
from sar_eval.types import Generation, Json, Prompt

DECODING_THREADS = 4  # decoding releases the GIL, so judges decode ahead of their networks
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LAYOUTS = {
    "geneval": "00000/metadata.jsonl and 00000/samples/*.png",
    "manifest": "manifest.jsonl or manifest.csv with `file` and `prompt_id` or `prompt`",
    "named": "<prompt id>_<index>.png, <prompt id>/<index>.png, or <prompt id>.png where there is one",
    "grids": "<prompt id>.png with the four images of its prompt as 2x2, where there are four a prompt",
}
GRID_TILES = 4
JPEG = b"\xff\xd8\xff"
SINGLE_HINT = "if there is one image a prompt, use --images-per-prompt 1"
SAMPLE_SIZE = 64  # files that are inspected to detect the grid of all of them


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode an image to RGB uint8 `[H, W, 3]`, rotated by its EXIF orientation, without alpha.

    Raises:
        BadInput: the bytes are no readable image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"unreadable image: {error}") from error


def read_image(generation: Generation) -> NDArray[np.uint8]:
    """Decode a generation's image to RGB uint8 `[H, W, 3]`.

    Raises:
        BadInput: no image, an unreadable one, or one of a single colour.
    """
    if generation.image is None:
        raise BadInput(f"no image: {generation.error}")
    pixels = decode_image(generation.image)
    if bool((pixels == pixels[0, 0]).all()):
        raise BadInput("blank image")
    return pixels


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB uint8 `[H, W, 3]` as PNG, with fast compression."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass(slots=True)
class ImageFolder:
    """The files of a folder by draw.

    Attributes:
        layout: a name in `LAYOUTS`.
        files: draw key to file.
        sizes: file to (width, height) in pixels; None where its header cannot be read.
        grid: of each file, if each holds four images.
        formats: of grid files, as "JPEG/PNG".
        note: a warning for the user ("" for none).
    """

    layout: str
    files: dict[str, Path]
    sizes: dict[Path, tuple[int, int] | None] = field(default_factory=dict)
    grid: Grid | None = None
    formats: str = ""
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """The most common size; the larger one of two equally common."""
        known = Counter(size for size in self.sizes.values() if size is not None)
        return max(known, key=lambda size: (known[size], size), default=(0, 0))

    @property
    def resolution(self) -> int:
        """The longer side of one image in pixels."""
        return max(self.grid.tile if self.grid else self.size)

    def __str__(self) -> str:
        """The size of the images, or the grids that they are cut from; part of the run's protocol."""
        if self.grid:
            return f"2x2 grids ({self.formats}), {self.grid}"
        return f"{self.size[0]}x{self.size[1]}"

    def missing(self, prompts: Sequence[Prompt]) -> list[str]:
        """Ids of the prompts that have no image at all."""
        present = {key.rpartition("/")[0] for key in self.files}
        return [prompt.id for prompt in prompts if prompt.id not in present]

    def digest(self) -> str:
        """SHA-256 (16 hex digits) of the grid, the draw keys and every file's bytes."""
        total, digest_of = hashlib.sha256(str(self.grid or "").encode()), cache(_file_digest)
        for key, path in sorted(self.files.items()):
            total.update(f"{key}\0{digest_of(path)}\n".encode())
        return total.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_images(folder: Path, prompts: Sequence[Prompt], images_per_prompt: int) -> ImageFolder:
    """Detect a folder's layout and match its files to draws.

    Where four images a prompt are expected and there is one file, it is read as a 2x2 grid.

    Raises:
        BadInput: no such folder, no known layout, grids that cannot be cut, or images that match no draw
            (of another suite, or more of a prompt than `images_per_prompt`).
    """
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}")
    layout = _detect_layout(folder, prompts, images_per_prompt)
    match_files = {
        "geneval": _match_geneval,
        "manifest": _match_manifest,
        "named": _match_named,
        "grids": _match_grids,
    }[layout]
    files: dict[str, Path] = {}
    for prompt, index, path in match_files(folder, prompts):
        key = f"{prompt.id}/{index}"
        if key in files:
            raise BadInput(f"{path} and {files[key]} are both image {index} of prompt {prompt.id!r}")
        if index >= images_per_prompt:
            raise BadInput(
                f"{path} is image {index} (from 0) of prompt {prompt.id!r}, but {images_per_prompt} "
                "a prompt are expected: set their number with --images-per-prompt"
            )
        files[key] = path
    if not files:
        raise BadInput(f"{folder} has the layout {layout}, but no image of this suite in it")
    images = ImageFolder(layout, files, {path: _read_size(path) for path in dict.fromkeys(files.values())})
    if layout == "grids":
        _set_grid(images, folder)
    return images


def _detect_layout(folder: Path, prompts: Sequence[Prompt], images_per_prompt: int) -> str:
    if any((folder / f"manifest.{kind}").is_file() for kind in ("jsonl", "csv")):
        return "manifest"
    if next(folder.glob("*/metadata.jsonl"), None) is not None:
        return "geneval"
    if paths := [*_list_images(folder), *_list_images(folder, "*/*")]:
        unindexed = _are_prompt_ids(folder, paths, {prompt.id for prompt in prompts})
        return "grids" if unindexed and images_per_prompt == GRID_TILES else "named"
    known = "; ".join(f"{name}: {pattern}" for name, pattern in LAYOUTS.items())
    raise BadInput(f"no images found in {folder}; known layouts are {known}")


def _list_images(folder: Path, pattern: str = "*") -> Iterator[Path]:
    return (path for path in sorted(folder.glob(pattern)) if path.suffix.lower() in SUFFIXES)


def _match_geneval(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    """By each folder's metadata; the folders' numbers do not matter."""
    by_checks = {_canonical(prompt.checks): prompt for prompt in prompts if prompt.checks is not None}
    by_text = {prompt.text: prompt for prompt in prompts}
    for path in sorted(folder.glob("*/metadata.jsonl")):
        metadata = _json(path.read_text().strip(), str(path))
        prompt = by_checks.get(_canonical(metadata)) or by_text.get(str(metadata.get("prompt")))
        if prompt is None:
            raise BadInput(f"{path} belongs to no prompt of this suite: {metadata.get('prompt')!r}")
        yield from ((prompt, index, file) for index, file in _numbered_images(path.parent / "samples"))


def _numbered_images(folder: Path) -> list[tuple[int, Path]]:
    """Images by the number in their name, from 0 even where the names count from 1."""
    files = list(_list_images(folder))
    if invalid := [path for path in files if not path.stem.isdecimal()]:
        raise BadInput(f"{invalid[0]}: a sample's name must be a number")
    by_number = sorted((int(path.stem), path) for path in files)
    first = 1 if by_number and by_number[0][0] == 1 and by_number[-1][0] == len(by_number) else 0
    return [(number - first, path) for number, path in by_number]


def _match_manifest(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    by_text = {prompt.text: prompt for prompt in prompts}
    lines: Counter[str] = Counter()  # of each prompt so far
    for where, row in _manifest_rows(folder):
        file = folder / str(row.get("file", ""))
        if not row.get("file") or not file.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{where}: no `file` inside {folder}")
        if not file.is_file():
            raise BadInput(f"{where}: no file {file}")
        prompt = by_id.get(str(row.get("prompt_id"))) or by_text.get(str(row.get("prompt")))
        if prompt is None:
            raise BadInput(f"{where}: neither `prompt_id` nor `prompt` names a prompt of this suite")
        index = row.get("index")
        yield prompt, lines[prompt.id] if index in (None, "") else _parse_index(index, where), file
        lines[prompt.id] += 1


def _manifest_rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    path = folder / "manifest.jsonl"
    if path.is_file():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{path}:{number}", _json(line, f"{path}:{number}")
    else:
        with (folder / "manifest.csv").open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                yield f"{folder / 'manifest.csv'}:{number}", dict(row)


def _stem(folder: Path, path: Path) -> str:
    """The path inside the folder without its suffix."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _are_prompt_ids(folder: Path, paths: Sequence[Path], ids: Collection[str]) -> bool:
    """Whether every file is named by a prompt id without an index (an id may itself end in `_2`)."""
    return all(_stem(folder, path) in ids for path in paths)


def _match_named(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    paths = [*_list_images(folder), *_list_images(folder, "*/*")]
    if _are_prompt_ids(folder, paths, by_id):
        yield from ((by_id[_stem(folder, path)], 0, path) for path in paths)
        return
    matches = {path: re.fullmatch(r"(.+)[_/](\d+)", _stem(folder, path)) for path in paths}
    known = {path: match for path, match in matches.items() if match and match[1] in by_id}
    if unknown := [path for path in paths if path not in known]:
        raise BadInput(_name_error(folder, unknown, by_id))
    yield from ((by_id[match[1]], int(match[2]), path) for path, match in known.items())


def _name_error(folder: Path, paths: Sequence[Path], ids: Collection[str]) -> str:
    """What is wrong with the names of files that match no draw."""
    if unindexed := [path for path in paths if _stem(folder, path) in ids]:
        return (
            f"{_join_first(unindexed)} without an index, where other files have one: "
            "name all files in the same way"
        )
    return f"{_join_first(paths)} names no prompt of this suite: expected {LAYOUTS['named']}"


def _join_first(paths: Sequence[Path]) -> str:
    listed = ", ".join(map(str, paths[:5]))
    return listed if len(paths) <= 5 else f"{listed} and {len(paths) - 5} more"


def _match_grids(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    for path in _list_images(folder):
        yield from ((by_id[_stem(folder, path)], index, path) for index in range(GRID_TILES))


def _set_grid(images: ImageFolder, folder: Path) -> None:
    """Set `grid` to the most common grid of a sample of the files of the most common size.

    Raises:
        BadInput: most of them cannot be cut.
    """
    paths = sorted(path for path, size in images.sizes.items() if size == images.size)
    sample = [found for path in paths[:: -(-len(paths) // SAMPLE_SIZE) or 1] if (found := _inspect(path))]
    if not sample:
        raise BadInput(f"{folder}: none of the images can be read")
    images.grid = Counter(grid for grid, _, _ in sample).most_common(1)[0][0]
    images.formats = "/".join(sorted({image_format for _, image_format, _ in sample}))
    if images.grid is None:
        size = f"{images.size[0]}x{images.size[1]} pixels"
        raise BadInput(f"{folder}: {size} cannot be cut into 2x2 and show no padding; {SINGLE_HINT}")
    if 2 * sum(single for _, _, single in sample) > len(sample):
        images.note = f"the files look like single images, with no edge in the middle; {SINGLE_HINT}"


def _inspect(path: Path) -> tuple[Grid | None, str, bool] | None:
    """A file's grid, its format, and whether it looks like a single image; None if it is unreadable."""
    try:
        data = path.read_bytes()
        pixels = decode_image(data)
    except (OSError, BadInput):
        return None  # an error of its draws, when the images are imported
    grid = detect_grid(pixels, lossy=is_lossy(data))
    image_format = "JPEG" if data.startswith(JPEG) else "WebP" if data[8:12] == b"WEBP" else "PNG"
    return grid, image_format, grid is not None and not grid.padding and looks_single(pixels)


def is_lossy(data: bytes) -> bool:
    """Whether an encoded image is lossily compressed (JPEG, most WebP)."""
    return data.startswith(JPEG) or (data[8:12] == b"WEBP" and data[12:16] != b"VP8L")


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


def _parse_index(value: Any, where: str) -> int:
    if not str(value).isdecimal():
        raise BadInput(f"{where}: `index` is {value!r}, it must be a whole number from 0")
    return int(value)


def _read_size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None  # an error of its draws, when the images are imported
