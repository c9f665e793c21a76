"""Finds the images of a folder: its layout, the file of every draw, their sizes, and grids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.images import manifest, names, official
from sar_eval.images.files import check_regular, decode_image, is_lossy, read_file, read_header
from sar_eval.images.grid_detection import Reading, read_grid
from sar_eval.images.grids import Grid
from sar_eval.images.listing import Listing, list_files
from sar_eval.images.numbers import index_files
from sar_eval.types import Prompt

LAYOUTS = {
    "geneval": official.PATTERN,
    "manifest": manifest.PATTERN,
    "named": names.PATTERN,
    "grids": "<prompt id>.png with all images of its prompt in rows and columns",
}
SAMPLE_SIZE = 64  # files that are inspected to detect the grid of all of them
LEAST_SAMPLE = 16  # of them, where files are large
SAMPLE_PIXELS = 2**26  # in all of them
LISTED = 3  # sizes in a note


@dataclass(frozen=True, slots=True)
class HowToRead:
    """What the user says of a folder.

    Attributes:
        images_per_prompt: how many are expected.
        numbered: file names are running numbers over the whole suite.
        same_size: an image of another size than most is an error.
        grid: rows and columns of the images in every file; None finds out.
    """

    images_per_prompt: int
    numbered: bool = False
    same_size: bool = False
    grid: tuple[int, int] | None = None


@dataclass(slots=True)
class MatchedFiles:
    """The files of a folder by draw.

    Attributes:
        folder: that they lie in.
        layout: a name in `LAYOUTS`.
        files: draw key to file.
        is_grid: each file shows all images of its prompt.
        unmatched: files that show no draw.
        notes: what was assumed or left out.
        problem: what to do about those without a match.
    """

    folder: Path
    layout: str
    files: dict[str, Path] = field(default_factory=dict)
    is_grid: bool = False
    unmatched: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass(slots=True)
class ImageFolder:
    """The files of a folder by draw, and what their headers say.

    Attributes:
        layout: a name in `LAYOUTS`.
        files: draw key to file.
        sizes: file to (width, height) in pixels; None where its header cannot be read.
        problems: of files whose header cannot be read, why.
        same_size: an image of another size than most is an error.
        grid: of each file, if each holds several images.
        formats: of grid files, as "JPEG/PNG".
        notes: for the user, a line each.
    """

    layout: str
    files: dict[str, Path]
    sizes: dict[Path, tuple[int, int] | None] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)
    same_size: bool = False
    grid: Grid | None = None
    formats: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """The most common size; the larger one of two equally common."""
        known = Counter(size for size in self.sizes.values() if size is not None)
        return max(known, key=lambda size: (known[size], size), default=(0, 0))

    @property
    def other_sizes(self) -> Counter[tuple[int, int]]:
        """How many files have each of the other sizes."""
        usual = self.size
        return Counter(size for size in self.sizes.values() if size not in (None, usual))

    @property
    def resolution(self) -> int:
        """The longer side of one image in pixels."""
        return max(self.grid.tile if self.grid else self.size)

    def __str__(self) -> str:
        """The size of the images, or the grids that they are cut from; part of the run's protocol."""
        if self.grid:
            return f"{self.grid.arrangement} grids ({self.formats}), {self.grid.describe()}"
        others = 0 if self.same_size else len(self.other_sizes)
        more = f" and {others} other size{'s' * (others > 1)}" if others else ""
        return f"{self.size[0]}x{self.size[1]}{more}"

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
    try:
        check_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, BadInput):
        return "unreadable"  # an error of its draws, when the images are imported


def find_images(folder: Path, prompts: Sequence[Prompt], how: HowToRead) -> ImageFolder:
    """Detect a folder's layout and match its files to draws.

    Where several images a prompt are expected and there is one file, it is read as a grid.

    Raises:
        BadInput: no such folder, no known layout, grids that cannot be cut, or images that match no draw
            (of another suite, or more of a prompt than `images_per_prompt`).
    """
    matched = match_files(folder, prompts, how)
    if matched.unmatched:
        raise BadInput(matched.problem)
    if not matched.files:
        raise BadInput(f"{folder} has the layout {matched.layout}, but no image of this suite in it")
    images = ImageFolder(matched.layout, matched.files, same_size=how.same_size, notes=matched.notes)
    _read_headers(images)
    if matched.is_grid:
        _set_grid(images, folder, how)
    elif how.grid:
        raise BadInput(f"{folder}: --grid is for one file a prompt, but these have a number for each image")
    elif others := images.other_sizes:
        images.notes.append(_sizes_note(images, others))
    return images


def images_of(files: dict[str, Path], *, same_size: bool = False) -> ImageFolder:
    """Files whose draws are known."""
    images = ImageFolder("files", files, same_size=same_size)
    _read_headers(images)
    if others := images.other_sizes:
        images.notes.append(_sizes_note(images, others))
    return images


def match_files(folder: Path, prompts: Sequence[Prompt], how: HowToRead) -> MatchedFiles:
    """The layout of a folder and the file of every draw; opens no image.

    Args:
        folder: of images, or the manifest in it.
        prompts: of the suite.
        how: the user says it is to be read.

    Raises:
        BadInput: no such folder, no known layout, two files of one draw, more of a prompt than expected, or
            names that can be read in two ways.
    """
    each = how.images_per_prompt
    if how.grid and how.grid[0] * how.grid[1] != each:
        shape = "x".join(map(str, how.grid))
        raise BadInput(
            f"--grid {shape} shows {how.grid[0] * how.grid[1]} images, but {each} are expected (-n)"
        )
    if folder.name in manifest.NAMES and folder.is_file():
        return _by_manifest(folder, prompts, each)
    listing = list_files(folder)
    if path := manifest.find_manifest(folder):
        return _by_manifest(path, prompts, each)
    if (inner := official.find_official(folder)) is not None:
        listing = listing if inner == folder else list_files(inner)
        found = _by_metadata(listing, prompts, each)
    else:
        found = _by_names(listing, prompts, how)
    found.folder = folder
    found.notes += listing.notes()
    return found


def _by_manifest(path: Path, prompts: Sequence[Prompt], each: int) -> MatchedFiles:
    notes: list[str] = []
    matches, is_grid = manifest.read_manifest(path, prompts, notes)
    files = index_files(matches, each, notes)
    return MatchedFiles(path.parent, "manifest", files, is_grid, notes=notes)


def _by_metadata(listing: Listing, prompts: Sequence[Prompt], each: int) -> MatchedFiles:
    notes: list[str] = []
    files = index_files(official.match_metadata(listing, prompts, notes), each, notes)
    return MatchedFiles(listing.folder, "geneval", files, notes=notes)


def _by_names(listing: Listing, prompts: Sequence[Prompt], how: HowToRead) -> MatchedFiles:
    each = how.images_per_prompt
    if not listing.images:
        known = "; ".join(f"{name}: {pattern}" for name, pattern in LAYOUTS.items())
        other = "".join(f" ({note})" for note in listing.notes())
        raise BadInput(f"no images found in {listing.folder}{other}; known layouts are {known}")
    inner = _inner_folder(listing, {prompt.id for prompt in prompts})
    folder = inner if how.numbered else listing.folder
    named = names.match_names(folder, listing.images, prompts, each, running=how.numbered)
    if named.unmatched and folder != inner:
        folder, named = inner, names.match_names(inner, listing.images, prompts, each)
    found = MatchedFiles(listing.folder, "named", unmatched=named.unmatched, notes=named.notes)
    if named.unmatched:
        found.problem = names.name_error(folder, named.unmatched, prompts, named.is_numbered)
    found.files = index_files(named.matches, each, found.notes)
    if not named.is_numbered and each > 1:
        found.layout, found.is_grid = "grids", True
        prompt_ids = {key.rpartition("/")[0]: path for key, path in found.files.items()}
        found.files = {f"{name}/{i}": path for name, path in prompt_ids.items() for i in range(each)}
    return found


def _inner_folder(listing: Listing, ids: set[str]) -> Path:
    """The folder itself, or the one inside it that all images lie in, unless that is named by a prompt."""
    folder = listing.folder
    while True:
        inner = {path.relative_to(folder).parts[0] for path in listing.images}
        (name, *others) = inner
        deeper = all(len(path.relative_to(folder).parts) > 1 for path in listing.images)
        if others or not deeper or name in ids or not any(c.isalpha() for c in name):
            return folder
        folder /= name


def _read_headers(images: ImageFolder) -> None:
    for path in dict.fromkeys(images.files.values()):
        try:
            images.sizes[path] = read_header(path).size
        except BadInput as error:
            images.sizes[path], images.problems[path] = None, str(error)


def _sizes_note(images: ImageFolder, others: Counter[tuple[int, int]]) -> str:
    listed = ", ".join(f"{w}x{h}" for (w, h), _ in others.most_common(LISTED))
    more = ", ..." if len(others) > LISTED else ""
    usual = f"{images.size[0]}x{images.size[1]}"
    then = "an error each" if images.same_size else "judged as they are (--same-size makes each an error)"
    return (
        f"{others.total()} of {len(images.sizes)} images are of other sizes than most ({usual}): "
        f"{listed}{more}; {then}"
    )


def _set_grid(images: ImageFolder, folder: Path, how: HowToRead) -> None:
    """Set `grid` to what most of a sample of the files of the most common size show.

    Raises:
        BadInput: there is no such grid, or single images are more likely.
    """
    paths = sorted(path for path, size in images.sizes.items() if size == images.size)
    wanted = min(SAMPLE_SIZE, max(LEAST_SAMPLE, SAMPLE_PIXELS // (images.size[0] * images.size[1] or 1)))
    step = -(-len(paths) // wanted) or 1
    sample = [found for path in paths[::step] if (found := _inspect(path, how))]
    if not sample:
        raise BadInput(f"{folder}: none of the images can be read")
    images.formats = "/".join(sorted({image_format for _, image_format in sample}))
    images.grid = _elect(
        [reading for reading, _ in sample], f"{folder}: {'x'.join(map(str, images.size))}", how
    )


def _inspect(path: Path, how: HowToRead) -> tuple[Reading, str] | None:
    """What a file shows, and its format; None if it is unreadable."""
    try:
        data = read_file(path)
        pixels, image_format = decode_image(data), read_header(path).image_format
    except BadInput:
        return None  # an error of its draws, when the images are imported
    return read_grid(pixels, how.images_per_prompt, lossy=is_lossy(data), forced=how.grid), image_format


def _elect(readings: Sequence[Reading], where: str, how: HowToRead) -> Grid:
    """The grid that more than half of the files show, more of them surely than look like single images."""
    votes = Counter(reading.grid for reading in readings if reading.grid)
    grid, number = votes.most_common(1)[0] if votes else (None, 0)
    certain = sum(reading.is_certain for reading in readings if reading.grid == grid)
    single = sum(reading.is_single for reading in readings)
    if grid is not None and 2 * number > len(readings) and (certain > single or not single):
        return grid
    seen = Counter(_what_was_seen(readings)).most_common(2)
    listed = "; ".join(f"{n} of {len(readings)}: {what}" for what, n in seen)
    raise BadInput(
        f"{where} pixels cannot be cut into {how.images_per_prompt} images of a prompt ({listed}); "
        "if there is one image a prompt, use --images-per-prompt 1; if each file shows rows and columns of "
        "them, say which, as --grid 2x2"
    )


def _what_was_seen(readings: Sequence[Reading]) -> Iterator[str]:
    for reading in readings:
        yield reading.problem or f"{reading.grid.arrangement if reading.grid else ''} with {reading.grid}"
