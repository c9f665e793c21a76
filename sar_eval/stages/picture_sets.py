"""The pictures of a set: a run's images, or the files of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.images.files import read_file
from sar_eval.images.listing import list_files, shown
from sar_eval.spec import RunSpec
from sar_eval.stages.inventory import Inventory
from sar_eval.stages.resume import check_keys, stopped, wanted_blocks
from sar_eval.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture that is read when it is wanted.

    Attributes:
        name: for messages.
        unit: what it belongs to: its prompt, or itself. Pictures of a unit are resampled together.
        read: gives its bytes, or raises BadInput.
    """

    name: str
    unit: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pictures, and what is known to be missing before any is read.

    Attributes:
        label: what the user called it, for messages.
        total: pictures that it should have.
        pictures: goes through those that are there; those of a run are read block by block.
        problems: why pictures are missing, by name.
        notes: what is left out on purpose.
    """

    label: str
    total: int
    pictures: Callable[[], Iterator[StoredPicture]]
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def open_pictures(path: Path) -> PictureSet:
    """The set in a run folder, or in a folder of images.

    Raises:
        BadInput: there is no such folder, no picture in it, or a run in it is damaged.
    """
    return _of_run(path) if (path / "run.json").is_file() else _of_folder(path)


def _of_folder(path: Path) -> PictureSet:
    found = list_files(path)
    if not found.images:
        left_out = "".join(f"; {note}" for note in found.notes())
        raise BadInput(f"{shown(path)} has no PNG, JPEG or WebP{left_out}")
    closed = {shown(folder): "cannot be read" for folder in found.closed}

    def pictures() -> Iterator[StoredPicture]:
        for file in found.images:
            yield StoredPicture(shown(file), shown(file), partial(read_file, file))

    return PictureSet(shown(path), len(found.images) + len(closed), pictures, closed, found.notes())


def _of_run(path: Path) -> PictureSet:
    folder = RunFolder(path)
    spec = RunSpec.from_json(folder.read_manifest().spec, str(path / "run.json"))
    inventory = Inventory(replace(spec, judge=""), folder)  # whether it is judged does not matter
    blocks = wanted_blocks(inventory.blocks, stopped(folder, inventory.drawn))
    problems: dict[str, str] = {}
    for block in blocks:
        problems |= inventory.state(block).problems
    total = sum(map(inventory.blocks.draws_in, blocks))
    if len(problems) == total:
        raise BadInput(f"{shown(path)} holds no images yet")
    return PictureSet(shown(path), total, partial(_images, inventory, blocks), problems)


def _images(inventory: Inventory, blocks: range) -> Iterator[StoredPicture]:
    for block in blocks:
        if (part := inventory.drawn.get(block)) is None:
            continue
        rows = inventory.generations.read(part.path, ["key", "image"]).to_pydict()
        check_keys(part, rows["key"], inventory.blocks.keys(block))
        for key, image in zip(rows["key"], rows["image"], strict=True):
            if image is not None and image["bytes"]:
                yield StoredPicture(key, key.rpartition("/")[0], partial(_as_is, image["bytes"]))


def _as_is(data: bytes) -> bytes:
    return data
