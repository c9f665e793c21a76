"""The run's lock: one process writes in a run folder, and only in one that is ours."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sar_eval.errors import BadInput, RunLocked
from sar_eval.storage.files import TEMPORARY, remove_own_temporaries, storage_errors

LOCK = "run.lock"
OWN_FILES = re.compile(r"run\.json|prompts\.parquet|summary\.json|report\.html")
# What a first start that died leaves beside its lock: the manifest comes right after the prompts.
BEFORE_MANIFEST = re.compile(r"run\.lock|prompts\.parquet")
# Of the file system or the desktop, in a folder that nobody has put anything into.
NOBODYS = re.compile(r"\..*|lost\+found")
WRONG_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENOENT)
NO_ACCESS = (errno.EACCES, errno.EPERM)


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold a run's exclusive write lock, which the operating system releases if the process dies.

    Raises:
        BadInput: the path cannot be a run folder, or is a folder with other things in it.
        RunLocked: another process holds it.
        StorageFailed: the folder cannot be written.
    """
    _make_folder(path)
    with storage_errors(path):
        file = (path / LOCK).open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunLocked(
                f"another process works in {path}: wait for it, or use another --out"
            ) from error
        with storage_errors(path):
            remove_own_temporaries(path, OWN_FILES)
        yield


def _make_folder(path: Path) -> None:
    """Make the folder, or see that it is a run's or empty, before anything is written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path / "run.json"):
            return
        names = [entry.name for entry in path.iterdir()]
        foreign = sorted(name for name in names if not _is_ours(name, begun=LOCK in names))
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        if isinstance(error, OSError) and error.errno not in (*WRONG_PATH, *NO_ACCESS):
            with storage_errors(path):
                raise
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"{str(path)!r} cannot be a run folder ({why}): name another with --out") from error
    if foreign:
        raise BadInput(
            f"--out {path} is not empty and no run folder: it has {foreign[0]!r} and no run.json. "
            "Name a new folder, or an empty one"
        )


def _is_ours(name: str, *, begun: bool) -> bool:
    """Whether a file may lie in a run folder without a manifest; `begun`: it has a lock file."""
    temporary = TEMPORARY.fullmatch(name)
    if temporary is not None and OWN_FILES.fullmatch(temporary[1]):
        return True
    return bool(NOBODYS.fullmatch(name) or (begun and BEFORE_MANIFEST.fullmatch(name)))
