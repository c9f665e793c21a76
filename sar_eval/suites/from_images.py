"""The suite of a folder of images: their own prompts, or none, for scorers that ask no suite."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sar_eval.encodings import read_text
from sar_eval.errors import BadInput
from sar_eval.images.listing import Listing, list_files, shown
from sar_eval.images.manifest import caption_rows, find_manifest
from sar_eval.storage.files import storage_errors, write_bytes
from sar_eval.tensors.published_weights import cache_folder
from sar_eval.types import Json, safe_id

NO_PROMPT = {"prompt": False}  # checks of a prompt that only names its image


@dataclass(slots=True)
class ImageSuite:
    """Prompts made of a folder, and its files.

    Attributes:
        path: the suite's file, in the cache.
        files: draw key to file.
        images_per_prompt: of each prompt.
        notes: what was assumed.
    """

    path: Path
    files: dict[str, Path]
    images_per_prompt: int = 1
    notes: list[str] = field(default_factory=list)


def suite_of_images(folder: Path) -> ImageSuite:
    """Prompts from a manifest or `metadata.jsonl`, else from `NAME.txt` beside `NAME.png`, else none.

    Images of the same prompt are its draws if every prompt has as many; else each image is a prompt of
    its own.

    Raises:
        BadInput: no such folder, no images, or a manifest whose rows name no file or no prompt.
    """
    manifest = find_manifest(folder) if folder.is_dir() else None
    notes: list[str] = []
    if manifest:
        pairs = caption_rows(manifest, notes)
    else:
        listing = list_files(folder)
        notes += listing.notes()
        pairs = _beside(listing, notes)
    if not pairs:
        raise BadInput(f"no images found in {shown(folder)}: PNG, JPEG or WebP files")
    return _suite(folder, pairs, notes)


def _beside(listing: Listing, notes: list[str]) -> list[tuple[Path, str]]:
    """Each image with the text of the file of its name, or ""."""
    doubts: list[str] = []
    pairs = []
    for path in listing.images:
        caption = path.with_suffix(".txt")
        pairs.append((path, read_text(caption, doubts).strip() if caption.is_file() else ""))
    notes += doubts[:1]
    return pairs


def _suite(folder: Path, pairs: Sequence[tuple[Path, str]], notes: list[str]) -> ImageSuite:
    by_text = Counter(text for _, text in pairs if text)
    each = next(iter(by_text.values()), 1)
    if by_text.total() < len(pairs) or set(by_text.values()) != {each}:
        each = 1
        if by_text and max(by_text.values()) > 1:
            notes.append(
                "prompts have different numbers of images: each image counts as a prompt of its own"
            )
    rows, files = _rows(folder, pairs, each)
    lines = "".join(json.dumps(row) + "\n" for row in rows.values()).encode()
    name = f"{safe_id(folder.resolve().name or 'images')}-{hashlib.sha256(lines).hexdigest()[:8]}.jsonl"
    path = cache_folder() / "suites" / name
    if not path.is_file():
        with storage_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, lines)
    missing = len(pairs) - by_text.total()
    notes.append(
        f"{len(files)} images, {missing} of them without a prompt" if missing else _counted(files, rows)
    )
    return ImageSuite(path, files, each, notes)


def _counted(files: Mapping[str, Path], rows: Mapping[str, Json]) -> str:
    return f"{len(files)} images of {len(rows)} prompts that lie beside them"


def _rows(
    folder: Path, pairs: Sequence[tuple[Path, str]], each: int
) -> tuple[dict[str, dict[str, Json]], dict[str, Path]]:
    """The suite's rows by id, and the file of every draw; an id is the name of the prompt's first file."""
    rows: dict[str, dict[str, Json]] = {}
    ids: dict[str, str] = {}  # of prompts with several images, by text
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    files: dict[str, Path] = {}
    for path, text in pairs:
        name = ids.get(text) if each > 1 else None
        if name is None:
            name = ids[text] = _new_id(path.relative_to(folder), taken)
            rows[name] = {"id": name, "text": text or shown(path.name)}
            rows[name] |= {} if text else {"checks": NO_PROMPT}
        files[f"{name}/{counts[name]}"] = path
        counts[name] += 1
    return rows, files


def _new_id(path: Path, taken: set[str]) -> str:
    """The file's name as an id; with its suffix and a digest where another file took that."""
    name = safe_id(shown("-".join(path.with_suffix("").parts)))
    if name.lower() in taken:
        name = safe_id(f"{shown(path)}!")
    taken.add(name.lower())
    return name
