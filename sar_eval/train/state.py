"""What an interrupted training run left, looked at before it is resumed: half-written files are told."""

from __future__ import annotations

import zipfile
from pathlib import Path

from sar_eval.errors import BadInput

AGAIN = "remove it to begin again from what was saved before, if anything was"


def make_folder(path: Path) -> None:
    """Make the folder to write, if it is not there.

    Raises:
        BadInput: a file has that name, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {path} cannot be made a folder: {error.strerror}") from error


def check_torch_file(path: Path, again: str = AGAIN) -> None:
    """Read a file of `torch.save` against its checksums, which torch itself does not look at.

    Args:
        path: of the file.
        again: what to do where it is damaged, for the message.

    Raises:
        BadInput: it is missing, cut off or damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise BadInput(f"{path} is damaged ({error}): {again}") from error
    if damaged:
        raise BadInput(f"{path} is damaged ({damaged}): {again}")
