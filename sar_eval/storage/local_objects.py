"""A folder as a store of objects: for one machine, or for a cluster on a shared file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

from sar_eval.errors import BadInput
from sar_eval.storage.files import storage_errors, sync_file, sync_folder
from sar_eval.storage.object_errors import fault, is_transient
from sar_eval.storage.objects import Names, ObjectInfo, ObjectMissing, ObjectStore, check_name
from sar_eval.storage.retries import Retries
from sar_eval.storage.temporaries import FOLDER, is_left_over, temporary_name

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

T = TypeVar("T")
Entries: TypeAlias = list[os.DirEntry[str]]


class LocalStore(ObjectStore):
    """Objects as files. They are written under a temporary name in `.tmp`, synced, and then named."""

    def __init__(self, uri: str, folder: Path, retries: Retries) -> None:
        super().__init__(uri, retries)
        self.folder = folder

    def read(self, name: str) -> bytes:
        """See `ObjectStore`."""
        with self.open(name) as file:
            return self._reading(name, file.read)

    def open(self, name: str) -> BinaryIO:
        """See `ObjectStore`."""
        return self._reading(name, lambda: _open_regular(self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """See `ObjectStore`."""
        self._writing(name, lambda: self._write(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """See `ObjectStore`. By a hard link, which never replaces a file."""
        return self._writing(name, lambda: self._create(name, data))

    def exists(self, name: str) -> bool:
        """See `ObjectStore`."""
        path = self._path(name)
        try:
            return path.is_file()
        except OSError as error:
            raise BadInput(f"cannot look for {path}: {fault(error).text}") from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See `ObjectStore`."""
        parent, _, _ = prefix.rpartition("/")
        yield from self._files(parent and check_name(parent), prefix)

    def folders(self, prefix: str) -> Names:
        """See `ObjectStore`."""
        entries = self._entries(prefix and check_name(prefix.rstrip("/")))
        return [entry.name for entry in entries if entry.is_dir() and entry.name != FOLDER]

    def delete(self, names: Iterable[str]) -> None:
        """See `ObjectStore`."""
        for name in names:
            with storage_errors(self._path(name)):
                self._path(name).unlink(missing_ok=True)

    def sweep(self) -> Names:
        """See `ObjectStore`: temporaries of processes that are gone."""
        left = [entry for entry in self._entries(FOLDER) if is_left_over(entry)]
        for entry in left:
            with storage_errors(Path(entry)):
                Path(entry).unlink(missing_ok=True)
        return [f"{FOLDER}/{entry.name}" for entry in left]

    def _path(self, name: str) -> Path:
        return self.folder / check_name(name)

    def _write(self, name: str, data: bytes) -> None:
        path, temporary = self._path(name), self._temporary(data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        if path.exists():
            return False
        temporary = self._temporary(data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            created = _link(temporary, path, data)
            sync_folder(path.parent)
            return created
        finally:
            temporary.unlink(missing_ok=True)

    def _temporary(self, data: bytes) -> Path:
        """A new synced file with these bytes."""
        folder = self.folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / temporary_name()
        try:
            with path.open("xb") as file:
                file.write(data)
                sync_file(file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _files(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        """By name as a whole, so that `a.b` comes before `a/b`, as buckets list them."""
        entries = [(e, f"{folder}/{e.name}" if folder else e.name) for e in self._entries(folder)]
        for entry, name in sorted(entries, key=lambda pair: pair[1] + "/" * pair[0].is_dir()):
            if entry.is_dir():
                if name != FOLDER and (f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/")):
                    yield from self._files(name, prefix)
            elif name.startswith(prefix):
                with suppress(FileNotFoundError):  # deleted since
                    found = entry.stat()
                    yield ObjectInfo(name, found.st_size, found.st_mtime)

    def _entries(self, folder: str) -> Entries:
        path = self.folder / folder
        try:
            with os.scandir(path) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise BadInput(f"cannot list {path}: {fault(error).text}") from error

    def _reading(self, name: str, action: Callable[[], T]) -> T:
        try:
            return self.retries.call(action, is_transient)
        except OSError as error:
            found = fault(error)
            if found.kind == "missing":
                raise ObjectMissing(f"there is no {self.where(name)}") from error
            raise BadInput(f"cannot read {self.where(name)}: {found.text}") from error

    def _writing(self, name: str, action: Callable[[], T]) -> T:
        with storage_errors(self._path(name)):
            return self.retries.call(action, is_transient)


def _open_regular(path: Path) -> BinaryIO:
    """Opening a pipe would wait for ever; a set may come from anywhere."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.open("rb")


def _link(temporary: Path, path: Path, data: bytes) -> bool:
    """Give a file its name unless that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS may do it and lose the answer: then the file has two names.
        return temporary.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _write_new(path, data)
    return True


def _write_new(path: Path, data: bytes) -> bool:
    """Where there are no hard links: the name is taken first, so a crash in between leaves a short file."""
    try:
        with path.open("xb") as file:
            file.write(data)
            sync_file(file)
    except FileExistsError:
        return False
    return True
