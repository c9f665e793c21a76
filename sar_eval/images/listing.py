"""Lists the files of a folder of images, without what other programs leave between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.images.files import SUFFIXES

DEPTH = 3  # folders below the first, as in `<folder>/<prompt>/samples/<number>.png`
# Left by macOS, Windows and Jupyter; names that begin with a dot are hidden anyway.
CLUTTER = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "#recycle", "lost+found"}
OTHER_SUFFIXES = (".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif", ".heic", ".jxl", ".npy", ".svg")
LISTED = 5  # names in a message


@dataclass(slots=True)
class Listing:
    """What lies in a folder.

    Attributes:
        images: files (or what is called like one) with the suffix of an image, sorted.
        hidden: files of the system and of other programs.
        others: images in formats that are not read.
        closed: folders that cannot be read.
    """

    folder: Path
    images: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What is left out, one line for each reason."""
        found = (
            (self.hidden, "hidden files or files of the system are skipped"),
            (self.others, "files are in formats that are not read (convert them to PNG)"),
            (self.closed, "folders cannot be read"),
        )
        return [f"{len(paths)} {what}: {name_first(paths, self.folder)}" for paths, what in found if paths]


def list_files(folder: Path) -> Listing:
    """All files down to `DEPTH`, through links to folders too.

    Raises:
        BadInput: there is no such folder, or it cannot be read.
    """
    try:
        if not folder.is_dir():
            raise BadInput(f"no folder {folder}")
        os.listdir(folder)  # noqa: PTH208 - only whether it can be read
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot read {shown(folder)}: {getattr(error, 'strerror', None) or error}"
        ) from error
    found = Listing(folder)
    for path, is_hidden in _walk(folder, DEPTH, found):
        if is_hidden:
            found.hidden.append(path)
        elif path.suffix.lower() in SUFFIXES:
            found.images.append(path)
        elif path.suffix.lower() in OTHER_SUFFIXES:
            found.others.append(path)
    for paths in (found.images, found.hidden, found.others):
        paths.sort()
    return found


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or of the system."""
    return name.startswith(".") or name.lower() in CLUTTER


def _walk(folder: Path, depth: int, found: Listing, is_hidden: bool = False) -> Iterator[tuple[Path, bool]]:
    """Files below a folder, and whether they or a folder above them are hidden."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        found.closed.append(folder)
        return
    for entry in entries:
        path, hidden = folder / entry.name, is_hidden or is_clutter(entry.name)
        if not _is_folder(entry) or path.suffix.lower() in SUFFIXES:
            yield path, hidden
        elif depth > 0 and not _leads_back(entry, found.folder):
            yield from _walk(path, depth - 1, found, hidden)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _leads_back(entry: os.DirEntry[str], folder: Path) -> bool:
    """Whether a link leads to a folder above itself, where the same files would be found again."""
    return entry.is_symlink() and folder.resolve().is_relative_to(Path(entry.path).resolve())


def shown(path: Path | str) -> str:
    """A path for a message; bytes that are no text are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def name_first(paths: list[Path], folder: Path | None = None) -> str:
    """The first names of a list, and how many more there are."""
    names = [shown(path.relative_to(folder) if folder else path) for path in paths]
    listed = ", ".join(names[:LISTED])
    return listed if len(names) <= LISTED else f"{listed} and {len(names) - LISTED} more"
