"""The report's pictures: which rows are shown with theirs, thumbnails, and files beside the page."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, UnidentifiedImageError

from sar_eval.report.data import FAIL, NONE, SCORED, RunRows
from sar_eval.storage.files import storage_errors

ALL_UP_TO = 5_000  # pictures: a larger run shows a sample, unless a number is asked for
SAMPLE = 1_000  # pictures of a larger run
FIRST_ROWS = 60  # the first screen of a sampled run's gallery has its pictures
THUMBNAIL_SIDE = 192  # pixels of the longer side, as wide as a card of the gallery
# File suffix and MIME type by Pillow's format name.
FORMATS = {"PNG": ("png", "image/png"), "JPEG": ("jpg", "image/jpeg"), "WEBP": ("webp", "image/webp")}
# Our files in the folder beside the page: pictures of draws, and data. No other file is ever removed.
PICTURE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)_(\d+)(\.thumb)?\.(png|jpg|webp)")
DATA = re.compile(r"(([A-Z]-)?(index|(rows|details)-\d{6,})|comparison)\.js(\.\d+\.tmp)?")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the page: URLs for the card and the large view, and (width, height) in pixels.

    `problem` says why there is none to show.
    """

    card: str = ""
    full: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = ""

    def to_json(self, number: int) -> list[object]:
        """As `report_rows.js` takes it: `number` is the row's."""
        return [number, self.card, self.full, *self.size, self.problem]


def choose_pictures(rows: RunRows, limit: int | None, asked: list[int]) -> np.ndarray:
    """Row numbers, ascending, of the pictures to show: all, or `asked` ones and a sample of `limit`.

    A sample has the suite's first rows, and then of each task in turn a picture without a verdict, a failed
    one (where judges only score: one of the lower half) and any other.
    """
    stored = np.flatnonzero(rows.stored)
    if limit is None:
        limit = len(stored) if len(stored) <= ALL_UP_TO else SAMPLE
    if len(stored) <= limit:
        return stored
    kind = np.full(len(stored), 2)
    states, scores = rows.states[stored], rows.scores[stored]
    is_scored = states == SCORED
    median = np.median(scores[is_scored]) if is_scored.any() else 0
    kind[(states == FAIL) | (is_scored & (scores < median))] = 1
    kind[states == NONE] = 0
    group = rows.task_codes[stored // rows.k].astype(np.int64) * 3 + kind
    order = np.argsort(group, kind="stable")
    group_starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    turn = np.empty(len(stored), np.int64)
    turn[order] = np.arange(len(stored)) - np.repeat(
        group_starts, np.diff(group_starts, append=len(stored))
    )
    in_turn = stored[np.lexsort((stored, kind, turn))][:limit]
    first = stored[: min(FIRST_ROWS, limit // 2)]
    chosen = dict.fromkeys(np.concatenate([first, in_turn]).tolist())
    return np.unique([*list(chosen)[:limit], *(n for n in asked if rows.stored[n])]).astype(np.int64)


def embed(data: bytes | None) -> Picture:
    """The image as a data URL."""
    header = _read_header(data)
    if data is None or not isinstance(header, tuple):
        return Picture(problem=str(header))
    image_format, size = header
    return Picture(f"data:{FORMATS[image_format][1]};base64,{base64.b64encode(data).decode()}", "", size)


@dataclass(slots=True)
class PictureFiles:
    """Pictures and thumbnails beside the page, in a folder that is there.

    Attributes:
        folder: of the files.
        above: URL of the folder that it is in, with a slash; "" if that is the page's.
        names: of the files.
    """

    folder: Path
    above: str = ""
    names: set[str] = field(default_factory=set)

    def add(self, key: str, data: bytes | None) -> Picture:
        """Write a picture and, if it is smaller, its thumbnail, unless both are there already.

        Raises:
            StorageFailed: a file cannot be written.
        """
        header = _read_header(data)
        if data is None or not isinstance(header, tuple):
            return Picture(problem=str(header))
        image_format, size = header
        stem = key.replace("/", "_")
        full, small = self.folder / f"{stem}.{FORMATS[image_format][0]}", self.folder / f"{stem}.thumb.webp"
        with storage_errors(full):
            if not (full.is_file() and full.read_bytes() == data):
                small.unlink(missing_ok=True)
                full.unlink(missing_ok=True)
                if small_data := thumbnail(data):
                    small.write_bytes(small_data)
                full.write_bytes(data)  # last: only a whole one means that the thumbnail is up to date
            shown = [small, full] if small.is_file() else [full]
        self.names |= {path.name for path in shown}
        urls = [f"{self.above}{quote(self.folder.name)}/{quote(path.name)}" for path in shown]
        return Picture(urls[0], urls[-1], size)


def remove_stale(folder: Path, written: set[str], rows: RunRows) -> None:
    """Remove files of an earlier report from the folder beside the page, and the folder if it is empty.

    Args:
        folder: beside the page.
        written: names of this report's files.
        rows: of the run; a picture of another name than its draws have is somebody's own.

    Raises:
        StorageFailed: a file cannot be removed.
    """
    with storage_errors(folder):
        if not folder.is_dir():
            return
        for path in folder.iterdir():
            if path.name not in written and _is_ours(path.name, rows):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _is_ours(name: str, rows: RunRows) -> bool:
    picture = PICTURE.fullmatch(name)
    if picture is not None:
        return rows.number(f"{picture[1]}/{picture[2]}") is not None
    return DATA.fullmatch(name) is not None


def _read_header(data: bytes | None) -> tuple[str, tuple[int, int]] | str:
    """Format and (width, height), or why there are none: no image, another format, a broken header."""
    if not data:
        return "no image stored"
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            found = str(image.format), image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "unreadable image"
    return found if found[0] in FORMATS else "unreadable image"


def thumbnail(data: bytes) -> bytes | None:
    """A WebP of at most `THUMBNAIL_SIDE` pixels a side; None if the image is as small, or truncated."""
    sink = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) <= THUMBNAIL_SIDE:
                return None
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    small.save(sink, "WEBP", quality=82, method=4)
    return sink.getvalue()
