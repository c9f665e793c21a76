"""Recognise the text files that a clone without git-lfs has in place of large files."""

from __future__ import annotations

from pathlib import Path

from sar_eval.errors import BadInput

_FIRST_LINE = b"version https://git-lfs.github.com/spec/"
MAX_POINTER_BYTES = 1024


def is_pointer(path: Path) -> bool:
    """Whether a file is a git-lfs pointer."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_POINTER_BYTES:
            return False
        with path.open("rb") as file:
            return file.read(len(_FIRST_LINE)) == _FIRST_LINE
    except OSError:
        return False  # whoever reads the file says why it cannot be read


def refuse_pointer(path: Path) -> None:
    """Raise for a git-lfs pointer.

    Raises:
        BadInput: it is one; the message says how to get the file.
    """
    if is_pointer(path):
        raise BadInput(
            f"{path} is a git-lfs pointer, not the file: the folder was cloned without git-lfs. "
            f"Run: git -C {path.parent} lfs pull"
        )
