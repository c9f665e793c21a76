"""From a checkpoint's name to its family, by its files, and to the checkpoint that was found."""

from __future__ import annotations

from pathlib import Path

from sar_eval import discover
from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.families import foreign_folders
from sar_eval.families.family import CheckpointFiles, Family, TokenCheckpoint
from sar_eval.families.locate import locate_place
from sar_eval.tensors.hub import HUB_NAME

SEEN = 5  # names of files in a message


def find_checkpoint(name: str, visual_tokenizer: str = "") -> TokenCheckpoint:
    """Find a checkpoint of any family and check its files.

    Raises:
        UnknownName: there is no such checkpoint.
        BadInput: it is of no family that is known, or its files are missing or do not fit together.
    """
    # Only what says the family: which other files are needed, the family knows.
    place = locate_place(name)
    family = recognise(CheckpointFiles(place.folder, place.file, place.listed))
    with discover.guarded(f"family {family.name!r} cannot find checkpoint {name!r}"):
        return family.find(place.name if HUB_NAME.fullmatch(place.name) else name, visual_tokenizer)


def recognise(files: CheckpointFiles) -> Family:
    """The family of the checkpoint in a folder, or of one file in it.

    Raises:
        BadInput: it is of none, and the message says what the folder is instead; or it could be of two.
    """
    folder = files.folder
    foreign_folders.refuse_adapter(folder)
    found = families_of(files)
    if len(found) > 1:
        names = " and ".join(sorted(family.name for family in found))
        raise BadInput(f"{folder} has the files of checkpoints of {names}: which it is cannot be told")
    if not found:
        described = foreign_folders.describe(folder) if folder.is_dir() and not files.file else ""
        raise BadInput(described or _of_no_family(files))
    return found[0]


def families_of(files: CheckpointFiles) -> list[Family]:
    """Every family that recognises the files of a folder."""
    found = []
    for name in discover.names("families"):
        family: Family = discover.load("families", name)
        with discover.guarded(f"family {name!r} cannot look at {files.folder}"):
            if family.recognises(files):
                found.append(family)
    return found


def refuse_other(folder: Path, family: str) -> None:
    """Raise for a folder that is another family's.

    Args:
        folder: of a checkpoint.
        family: the one that is needed.

    Raises:
        BadInput: it is, and none of that family.
    """
    found = [other.name for other in families_of(CheckpointFiles(folder))]
    if found and family not in found:
        raise BadInput(
            f"{folder} is a checkpoint of the family {found[0]!r}, and this needs one of {family!r}: "
            f"training knows {family!r} alone; the engine native draws with both"
        )


def _of_no_family(files: CheckpointFiles) -> str:
    known = ", ".join(sorted(discover.names("families")))
    if files.file:
        return (
            f"{files.folder / files.file} is a checkpoint of no family that is known ({known}): its "
            "tensors are none of theirs or cannot be read, and no config.json beside it says more"
        )
    return f"{files.folder} is a checkpoint of no family that is known ({known}): it has {_seen(files)}"


def _seen(files: CheckpointFiles) -> str:
    """What a folder has, in words."""
    if "config.json" not in files.names:
        others = ", ".join(map(shorten, files.names[:SEEN])) + (", ..." if files.names[SEEN:] else "")
        return "no config.json" + (f", but {others}" if others else " and no file at all")
    kind, architectures = files.config.get("model_type"), files.config.get("architectures")
    return f"model_type {shorten(kind)} and architectures {shorten(architectures)} in config.json"
