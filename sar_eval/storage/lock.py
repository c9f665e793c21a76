"""The lock of a run or a training: one process writes in its folder, and only in one that is ours."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sar_eval.errors import BadInput, RunLocked
from sar_eval.storage.files import TEMPORARY, remove_own_temporaries, storage_errors
from sar_eval.storage.owner import Heartbeat, read_owner, refuse_if_alive, this_process

LOCK = "run.lock"
TRAINING_LOCK = "state/lock"  # goes with the states when the checkpoint is whole
OWN_FILES = re.compile(r"run\.json|prompts\.parquet|summary\.json|report\.html")
# What a first start that died leaves beside its lock: the manifest comes right after the prompts.
BEFORE_MANIFEST = re.compile(r"run\.lock|prompts\.parquet")
# Of the file system or the desktop, in a folder that nobody has put anything into.
NOBODYS = re.compile(r"\..*|lost\+found")
WRONG_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENOENT)
NO_ACCESS = (errno.EACCES, errno.EPERM)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
INSTEAD = "other processes are told apart by the name in run.lock alone"


@contextmanager
def run_lock(path: Path) -> Iterator[str]:
    """Hold a run's exclusive write lock, which the operating system releases if the process dies.

    Yields a note on locks that this file system does not have, else "".

    Raises:
        BadInput: the path cannot be a run folder, or is a folder with other things in it.
        RunLocked: another process holds it, or took it because both started at the same moment.
        StorageFailed: the folder cannot be written.
    """
    _make_folder(path)
    with _held(path, path / LOCK) as note:
        with storage_errors(path):
            remove_own_temporaries(path, OWN_FILES)
        yield note


@contextmanager
def training_lock(path: Path) -> Iterator[None]:
    """Hold the exclusive write lock of a training's folder, which is made if it is not there.

    Raises:
        BadInput: see `check_training_folder`.
        RunLocked: another process trains there.
        StorageFailed: the folder cannot be written.
    """
    check_training_folder(path)
    file = path / TRAINING_LOCK
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with _held(path, file):
        yield


def check_training_folder(path: Path) -> None:
    """See that a folder is new, empty, or one that training has begun in; nothing is written.

    A training replaces files of a checkpoint's names, and removes folders of its own names.

    Raises:
        BadInput: it is no folder, cannot be read, or has other things in it.
    """
    try:
        _see_that_it_is_writable(path)
        if not path.exists() or os.path.lexists(path / "settings.json"):
            return
        foreign = sorted(entry.name for entry in path.iterdir() if not _precedes_settings(entry))
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"--out {str(path)!r} cannot be the folder to write: {why}") from error
    if foreign:
        raise BadInput(
            f"--out {path} is not empty and no training's folder: it has {foreign[0]!r} and no "
            "settings.json. Name a new folder, or an empty one"
        )


def _see_that_it_is_writable(path: Path) -> None:
    """Raises OSError where a folder cannot be made, or nothing in it: before hours of work, not after."""
    nearest = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not stat.S_ISDIR(nearest.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _precedes_settings(entry: Path) -> bool:
    """Whether a training that died before its settings were stored may have left this."""
    temporary = TEMPORARY.fullmatch(entry.name)
    if NOBODYS.fullmatch(entry.name) or (temporary is not None and temporary[1] == "settings.json"):
        return True
    folder, _, lock = TRAINING_LOCK.partition("/")
    return entry.name == folder and {each.name for each in entry.iterdir()} <= {lock}


@contextmanager
def _held(folder: Path, file: Path) -> Iterator[str]:
    """Hold the lock `file` of a folder; yields a note if this file system has no locks, else ""."""
    descriptor = _open(file)
    try:
        holds = _flock(descriptor, file, folder)
        with _owning(file, descriptor, holds, folder):
            yield "" if holds else f"{folder} has no file locks: {INSTEAD}"
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    """Open the lock file. What it is a link to would be overwritten, and a pipe would wait for ever."""
    with storage_errors(file):
        if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
            raise BadInput(f"{file} is no regular file: remove it, it is no lock of ours")
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def _flock(descriptor: int, file: Path, folder: Path) -> bool:
    """Take the system's lock; False if this file system has none, or one that everybody gets."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = read_owner(file)
        raise RunLocked(
            f"another process works in {folder}{f' ({owner})' if owner else ''}: wait for it, "
            "or use another --out"
        ) from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        with storage_errors(file):
            raise
    return not _everybody_gets_it(file)


def _everybody_gets_it(file: Path) -> bool:
    """Whether a second taker is let in (`nolock` mounts)."""
    second = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(second)
    return True


@contextmanager
def _owning(file: Path, descriptor: int, holds: bool, folder: Path) -> Iterator[None]:
    """Stand in the lock file as the owner; `holds`: the system's lock keeps others of this kernel out."""
    here, owner = this_process(), read_owner(file)
    if owner is not None and not (holds and here.shares_kernel(owner)):
        refuse_if_alive(owner, file, here)
    heartbeat = Heartbeat(file, descriptor, here)
    heartbeat.start()
    try:
        yield
    except KeyboardInterrupt:
        if heartbeat.taken_by is None:
            raise
        raise RunLocked(f"{heartbeat.taken_by} took {folder}: both started at once") from None
    finally:
        heartbeat.stop()


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
