"""Files of any names below a folder or an address, to read: pictures, tars and Parquet files of others."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from sar_eval.errors import BadInput
from sar_eval.storage.local_objects import LocalStore
from sar_eval.storage.object_errors import fault
from sar_eval.storage.objects import ObjectInfo, ObjectStore
from sar_eval.storage.remote_objects import Ranges, RemoteStore
from sar_eval.storage.retries import PATIENT, Retries

HUB = "hf"
HUB_TRIES = 2  # the hub's client tries each several times by itself
READ_AHEAD = 1 << 22  # bytes of one request to the hub
FILE_SUFFIXES = (".parquet", ".tar", ".csv", ".tsv", ".json", ".jsonl")  # of an address that is a file


class LocalSource(LocalStore):
    """A folder. Links are followed, each folder once."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open_source, (self.uri, self.retries)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Regular files whose names begin with a prefix, by name."""
        for name in sorted(name for name in self._names() if name.startswith(prefix)):
            path = self.folder / name
            if path.is_file():  # neither a pipe nor a link that leads nowhere
                found = path.stat()
                yield ObjectInfo(name, found.st_size, found.st_mtime)

    def _names(self) -> Iterator[str]:
        seen: set[tuple[int, int]] = set()
        for folder, below, files in os.walk(self.folder, onerror=_cannot_list, followlinks=True):
            status = os.stat(folder)  # noqa: PTH116 - `os.walk` gives text
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            yield from (Path(folder, name).relative_to(self.folder).as_posix() for name in files)

    def _path(self, name: str) -> Path:
        return self.folder / name


class RemoteSource(RemoteStore):
    """A folder of a bucket, or of a repository of the hub."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open_source, (self.uri, self.retries)

    def open(self, name: str) -> BinaryIO:
        """See `ObjectStore`. Of the hub a file asks once where it lies, not at each read."""
        if self.protocol != HUB:
            return super().open(name)
        path = self._path(name)
        file = self._reading(name, lambda: self._files.open(path, "rb", cache_type="none"))

        def read(start: int, end: int) -> bytes:
            file.seek(start)
            return bytes(file.read(end - start))

        ranges = Ranges(file.size, lambda start, end: self._reading(name, lambda: read(start, end)))
        return cast(BinaryIO, io.BufferedReader(ranges, READ_AHEAD))

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"


def open_source(place: str, retries: Retries = PATIENT) -> ObjectStore:
    """The files below a folder or an address. Names must come from its listing: they are not checked.

    Raises:
        BadInput: no such folder, or no such kind of store.
        MissingExtra: the package for this kind is not installed.
    """
    if "://" in place and not place.startswith("file://"):
        if place.startswith(f"{HUB}://"):
            retries = replace(retries, tries=min(HUB_TRIES, retries.tries))
        return RemoteSource(place.rstrip("/"), retries)
    folder = Path(place.removeprefix("file://"))
    try:
        if not folder.is_dir():
            raise BadInput(f"no folder {place}")
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise BadInput(f"cannot read {place}: {getattr(error, 'strerror', None) or error}") from error
    return LocalSource(place, folder, retries)


def split_place(place: str) -> tuple[str, str]:
    """The folder of a place, and the file that it names in it ("": all of them)."""
    is_remote = "://" in place and not place.startswith("file://")
    path = Path(place.removeprefix("file://"))
    is_file = place.lower().endswith(FILE_SUFFIXES) if is_remote else path.is_file()
    if not is_file:
        return place, ""
    folder, _, name = place.rpartition("/")
    return folder or ("/" if place.startswith("/") else "."), name


def _cannot_list(error: OSError) -> None:
    raise BadInput(f"cannot list {error.filename}: {fault(error).text}") from error
