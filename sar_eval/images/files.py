"""Images that others made: reading them, and finding which file shows which draw."""

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

DECODING_THREADS = 4  # decoding lets go of Python's lock, so judges decode ahead of their networks
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LAYOUTS = {
    "geneval": "00000/metadata.jsonl and 00000/samples/*.png",
    "manifest": "manifest.jsonl or manifest.csv with `file` and `prompt_id` or `prompt`",
    "named": "<prompt id>_<index>.png, <prompt id>/<index>.png, or <prompt id>.png where there is one",
    "grids": "<prompt id>.png with the four images of its prompt as 2x2, where there are four a prompt",
}
GRID_TILES = 4
JPEG = b"\xff\xd8\xff"
SINGLE = "if there is one image a prompt, say --images-per-prompt 1"
SAMPLE = 64  # files that are looked at to find out how all of them were put together


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Encoded image to RGB uint8 [H, W, 3], turned as its EXIF says, without its alpha.

    Raises:
        BadInput: the bytes are no readable image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"unreadable image: {error}") from error


def read_image(generation: Generation) -> NDArray[np.uint8]:
    """A generation's image as RGB uint8 [H, W, 3], if it shows anything.

    Raises:
        BadInput: there is no image, it is unreadable, or all of one colour.
    """
    if generation.image is None:
        raise BadInput(f"no image: {generation.error}")
    pixels = decode_image(generation.image)
    if bool((pixels == pixels[0, 0]).all()):
        raise BadInput("blank image")
    return pixels


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """RGB uint8 [H, W, 3] as a PNG, quickly."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass(slots=True)
class ImageFolder:
    """Which file shows which draw.

    Attributes:
        layout: a name in `LAYOUTS`.
        files: draw key to file.
        size: (width, height) in pixels of most files.
        sizes: file to its own size; None where its header cannot be read.
        grid: how four images lie in each file, if they do.
        form: the formats that grids were found in.
        note: a doubt that the reader should know of ("" for none).
    """

    layout: str
    files: dict[str, Path]
    sizes: dict[Path, tuple[int, int] | None] = field(default_factory=dict)
    grid: Grid | None = None
    form: str = ""
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
        """How large the images are and what they were cut from."""
        if self.grid:
            return f"2x2 grids ({self.form}), {self.grid}"
        return f"{self.size[0]}x{self.size[1]}"

    def missing(self, prompts: Sequence[Prompt]) -> list[str]:
        """Ids of the prompts that have no image at all."""
        there = {key.rpartition("/")[0] for key in self.files}
        return [prompt.id for prompt in prompts if prompt.id not in there]

    def digest(self) -> str:
        """SHA-256 (16 hex digits) of the keys, of every file's bytes, and of how files are cut."""
        told, bytes_of = hashlib.sha256(str(self.grid or "").encode()), cache(_file_digest)
        for key, path in sorted(self.files.items()):
            told.update(f"{key}\0{bytes_of(path)}\n".encode())
        return told.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_images(folder: Path, prompts: Sequence[Prompt], images_per_prompt: int) -> ImageFolder:
    """Tell a folder's layout by what lies in it, and give each draw its file.

    One file for each prompt, where four images of each are expected, is taken for a 2x2 grid.

    Raises:
        BadInput: no such folder, no known layout, grids that cannot be cut, or images that are nobody's
            (another suite, more images of a prompt than asked for).
    """
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}")
    layout = _layout(folder, prompts, images_per_prompt)
    read = {"geneval": _geneval, "manifest": _manifest, "named": _named, "grids": _grids}[layout]
    files: dict[str, Path] = {}
    for prompt, index, path in read(folder, prompts):
        key = f"{prompt.id}/{index}"
        if key in files:
            raise BadInput(f"{path} and {files[key]} are both image {index} of prompt {prompt.id!r}")
        if index >= images_per_prompt:
            raise BadInput(
                f"{path} is image {index} (from 0) of prompt {prompt.id!r}, but {images_per_prompt} "
                "a prompt are expected: say how many there are with --images-per-prompt"
            )
        files[key] = path
    if not files:
        raise BadInput(f"{folder} has the layout {layout}, but no image of this suite in it")
    images = ImageFolder(layout, files, {path: _size(path) for path in dict.fromkeys(files.values())})
    if layout == "grids":
        _find_grid(images, folder)
    return images


def _layout(folder: Path, prompts: Sequence[Prompt], images_per_prompt: int) -> str:
    if any((folder / f"manifest.{kind}").is_file() for kind in ("jsonl", "csv")):
        return "manifest"
    if next(folder.glob("*/metadata.jsonl"), None) is not None:
        return "geneval"
    if named := [*_images(folder), *_images(folder, "*/*")]:
        bare = _are_bare(folder, named, {prompt.id for prompt in prompts})
        return "grids" if bare and images_per_prompt == GRID_TILES else "named"
    known = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    raise BadInput(f"no images found in {folder}; known layouts are {known}")


def _images(folder: Path, pattern: str = "*") -> Iterator[Path]:
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
    """Images by the number in their name, counted from 0 even where the names are not."""
    files = list(_images(folder))
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


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _are_bare(folder: Path, paths: Sequence[Path], ids: Collection[str]) -> bool:
    """Whether every file is called after a prompt alone (an id may itself end in `_2`)."""
    return all(_name(folder, path) in ids for path in paths)


def _named(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    paths = [*_images(folder), *_images(folder, "*/*")]
    if _are_bare(folder, paths, by_id):
        yield from ((by_id[_name(folder, path)], 0, path) for path in paths)
        return
    told = {path: re.fullmatch(r"(.+)[_/](\d+)", _name(folder, path)) for path in paths}
    known = {path: match for path, match in told.items() if match and match[1] in by_id}
    if odd := [path for path in paths if path not in known]:
        raise BadInput(_odd_names(folder, odd, by_id))
    yield from ((by_id[match[1]], int(match[2]), path) for path, match in known.items())


def _odd_names(folder: Path, odd: Sequence[Path], ids: Collection[str]) -> str:
    """What is wrong with the names of files that are nobody's."""
    if bare := [path for path in odd if _name(folder, path) in ids]:
        return f"{_some(bare)} without an index, where other files have one: name all of them one way"
    return f"{_some(odd)} names no prompt of this suite: expected {LAYOUTS['named']}"


def _some(paths: Sequence[Path]) -> str:
    listed = ", ".join(map(str, paths[:5]))
    return listed if len(paths) <= 5 else f"{listed} and {len(paths) - 5} more"


def _grids(folder: Path, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, int, Path]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    for path in _images(folder):
        yield from ((by_id[_name(folder, path)], index, path) for index in range(GRID_TILES))


def _find_grid(images: ImageFolder, folder: Path) -> None:
    """Find out how the files were put together, by what most of a sample of the common size show.

    Raises:
        BadInput: most of them cannot be cut.
    """
    paths = sorted(path for path, size in images.sizes.items() if size == images.size)
    looks = [look for path in paths[:: -(-len(paths) // SAMPLE) or 1] if (look := _look(path))]
    if not looks:
        raise BadInput(f"{folder}: none of the images can be read")
    images.grid = Counter(grid for grid, _, _ in looks).most_common(1)[0][0]
    images.form = "/".join(sorted({form for _, form, _ in looks}))
    if images.grid is None:
        size = f"{images.size[0]}x{images.size[1]} pixels"
        raise BadInput(f"{folder}: {size} cannot be cut into 2x2 and show no padding; {SINGLE}")
    if 2 * sum(single for _, _, single in looks) > len(looks):
        images.note = f"the files run on across their middle, as single images do; {SINGLE}"


def _look(path: Path) -> tuple[Grid | None, str, bool] | None:
    """A file's grid, its format, and whether it looks like a single image; None if it is unreadable."""
    try:
        data = path.read_bytes()
        pixels = decode_image(data)
    except (OSError, BadInput):
        return None  # told when the image is taken in
    grid = detect_grid(pixels, lossy=is_lossy(data))
    form = "JPEG" if data.startswith(JPEG) else "WebP" if data[8:12] == b"WEBP" else "PNG"
    return grid, form, grid is not None and not grid.padding and looks_single(pixels)


def is_lossy(data: bytes) -> bool:
    """Whether an encoded image's pixels are only about those that went in (JPEG, most WebP)."""
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


def _whole(value: Any, where: str) -> int:
    if not str(value).isdecimal():
        raise BadInput(f"{where}: `index` is {value!r}, it must be a whole number from 0")
    return int(value)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None  # told as unreadable when the image is taken in
