"""Folders that are replaced as a whole: a crash leaves the old one or the new one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from sar_eval.storage.files import storage_errors


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder beside, and put it in the place of the one that is there.

    Args:
        folder: to be replaced; need not exist.
        write: makes the new one at the path that it is given.

    Raises:
        StorageFailed: it cannot be written; the old one stays.
    """
    new, old = _beside(folder)
    with storage_errors(folder):
        shutil.rmtree(new, ignore_errors=True)
        write(new)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """After a crash in the middle of `replace_folder`, put the new folder in its place; tidy up.

    The old one has its other name only when the new one is whole.

    Raises:
        StorageFailed: it cannot be renamed.
    """
    new, old = _beside(folder)
    with storage_errors(folder):
        if old.exists() and new.exists() and not folder.exists():
            new.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
