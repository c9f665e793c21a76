"""From places to sources: what is there, and how it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from sar_eval.errors import BadInput
from sar_eval.images.listing import is_clutter
from sar_eval.storage.image_set import REPACKED, SPEC
from sar_eval.storage.object_errors import fault
from sar_eval.storage.objects import ObjectStore
from sar_eval.storage.set_reader import SetReader
from sar_eval.storage.source_files import HUB, open_source, split_place
from sar_eval.storage.token_folder import Unit
from sar_eval.tensors.hub import is_offline
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.tokenization.sources.image_set import ImageSetSource
from sar_eval.tokenization.sources.parquet import ParquetSource
from sar_eval.tokenization.sources.pictures import TABLE_SUFFIXES, TABLES, PictureSource, is_picture
from sar_eval.tokenization.sources.source import Source
from sar_eval.tokenization.sources.webdataset import WebDatasetSource

# The revisions with slashes are where the hub keeps its own Parquet files of a dataset, and requests.
_DATASET = re.compile(
    r"hf://datasets/([\w.-]+/[\w.-]+)(?:@(refs/(?:convert|pr)/[^/]+|[^/]+))?((?:/.*)?)", re.ASCII
)


def open_sources(places: Sequence[str], options: TokenizeOptions, notes: list[str]) -> list[Source]:
    """The sources at some places; what they assume of tables is appended to `notes` while they are read.

    Raises:
        BadInput: naming the place and what is wrong with it.
    """
    names = _names(places)
    named = enumerate(zip(names, places, strict=True))
    sources = [open_place(number, name, place, options, notes) for number, (name, place) in named]
    if options.image_column and not any(isinstance(source, ParquetSource) for source in sources):
        raise BadInput(f"--image-column {options.image_column}: no place has Parquet files")
    if options.caption_columns and all(isinstance(source, ImageSetSource) for source in sources):
        raise BadInput("--caption-column: the captions of a set are its own")
    return sources


def open_place(number: int, name: str, place: str, options: TokenizeOptions, notes: list[str]) -> Source:
    """The source at one place; what kind it is, its files say.

    Raises:
        BadInput: there is nothing to read, or files of several kinds.
    """
    folder, only = split_place(place)
    store = open_source(folder)
    files = {info.name: info for info in store.list("") if _is_wanted(info.name)}
    if only and only not in files:
        raise BadInput(f"no file {place}")
    if not only and (SPEC in files or REPACKED in files):
        return ImageSetSource(number, name, SetReader(store))
    if only.lower().endswith(TABLE_SUFFIXES):
        return PictureSource(number, name, store, files, only, options, notes, only)
    kind = options.format or _kind_of([only] if only else files, place)
    if kind == "pictures":
        if only and not is_picture(only):
            raise BadInput(f"{place} is no picture: .jpg, .png or .webp")
        return PictureSource(number, name, store, files, _table(files, store), options, notes, only)
    suffix, source = (".parquet", ParquetSource) if kind == "parquet" else (".tar", WebDatasetSource)
    found = [files[n] for n in ([only] if only else files) if n.lower().endswith(suffix)]
    if not found:
        raise BadInput(f"no {suffix} files in {place}")
    return source(number, name, store, found, options)


def blocks_of(sources: Sequence[Source], pictures: int) -> Iterator[list[Unit]]:
    """Units in order, as many together as have about so many pictures.

    A tar, of which nobody knows how many it has, is a block by itself.
    """
    block: list[Unit] = []
    rows = 0
    for source in sources:
        for unit in source.units():
            if block and (not unit.rows or not block[-1].rows or rows + unit.rows > pictures):
                yield block
                block, rows = [], 0
            block.append(unit)
            rows += unit.rows
    if block:
        yield block


def pinned(place: str) -> str:
    """A dataset of the hub at the commit where its revision is now; any other place as it is.

    Raises:
        BadInput: there is no such dataset or revision, or the hub may not be asked.
    """
    if not place.startswith(f"{HUB}://"):
        return place
    name, revision, folder = parse_dataset(place)
    if is_offline():
        raise BadInput(f"{place}: the hub may not be asked (SAR_EVAL_OFFLINE or HF_HUB_OFFLINE is set)")
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:
        raise BadInput(f"{place} cannot be asked for: {fault(error).text}") from error
    return f"{HUB}://datasets/{name}@{commit}{folder}"


def parse_dataset(place: str) -> tuple[str, str | None, str]:
    """ORG/NAME, revision and folder (with the slash before it) of `hf://datasets/ORG/NAME@REVISION/FOLDER`.

    Raises:
        BadInput: it is of another form.
    """
    match = _DATASET.fullmatch(place.rstrip("/"))
    if match is None:
        raise BadInput(
            f"{place}: a dataset of the hub is hf://datasets/ORG/NAME, with @REVISION or /FOLDER"
        )
    return match[1], match[2], match[3]


def _kind_of(names: Iterable[str], place: str) -> str:
    """Of the files of a place; raises BadInput if there are none, or of several kinds."""
    counts = dict.fromkeys(("pictures", "parquet", "webdataset"), 0)
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        kind = {".parquet": "parquet", ".tar": "webdataset"}.get(suffix, "")
        kind = kind or ("pictures" if is_picture(name) else "")
        if kind:
            counts[kind] += 1
    kinds = [kind for kind, number in counts.items() if number]
    if not kinds:
        raise BadInput(
            f"nothing to tokenize in {place}: no .jpg, .png or .webp, no .parquet, no .tar and no set"
        )
    if len(kinds) > 1:
        found = ", ".join(f"{counts[kind]} files for {kind}" for kind in kinds)
        raise BadInput(f"{place} has {found}: say which with --format")
    return kinds[0]


def _table(files: Iterable[str], store: ObjectStore) -> str:
    """The table of captions at the top of a folder; "" without one."""
    found = [name for name in TABLES if name in files]
    if len(found) > 1:
        raise BadInput(f"{store.uri} has {' and '.join(found)}: give the one to use as the place")
    return found[0] if found else ""


def _is_wanted(name: str) -> bool:
    """Neither hidden nor of the system; and text, as every name in a plan is."""
    if any(is_clutter(part) for part in name.split("/")):
        return False
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise BadInput(f"the name of the file {shown} is no UTF-8: rename it (see convmv)") from error
    return True


def _names(places: Sequence[str]) -> list[str]:
    """A short name of each place, for keys: the last part of its address, numbered where two are alike."""
    names: list[str] = []
    for place in places:
        match = _DATASET.fullmatch(place)
        last = (match[1] + match[3]).rpartition("/")[2] if match else place.rstrip("/").rpartition("/")[2]
        name, number = last or "data", 2
        while name in names:
            name, number = f"{last}-{number}", number + 1
        names.append(name)
    return names
