"""A file of any size to read ranges of, on this machine or in a bucket."""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sar_eval.errors import BadInput
from sar_eval.storage.objects import ObjectMissing, open_store

MAX_COPY = 4_000_000_000  # bytes of a file in a bucket whose format must be read as a whole
REMOTE_CHECK_S = 10.0  # a bucket is not asked more often whether a file is as it was


class InputFile(ABC):
    """A file as it was when it was opened.

    Attributes:
        uri: where it is.
        size: in bytes.
        stamp: when it was written, as text; "" if that is not known.
    """

    def __init__(self, uri: str) -> None:
        """Look at the file.

        Raises:
            BadInput: there is none, it is no regular file, or it cannot be asked for.
        """
        self.uri = uri
        self.size, self.stamp = self._status()

    @abstractmethod
    def open(self) -> BinaryIO:
        """The file, to read and to seek in.

        Raises:
            BadInput: it cannot be read.
        """

    @abstractmethod
    def _status(self) -> tuple[int, str]:
        """Size and stamp."""

    def is_as_it_was(self) -> bool:
        """Whether size and stamp are those at the start."""
        return self._status() == (self.size, self.stamp)

    @contextmanager
    def local_copy(self) -> Iterator[Path]:
        """A path on this machine where the bytes are, within the context.

        Raises:
            BadInput: it is in a bucket and longer than `MAX_COPY`, or cannot be read.
        """
        if self.size > MAX_COPY:
            raise BadInput(f"{self.uri} has over {MAX_COPY:,} bytes: write it as Parquet or JSON Lines")
        with tempfile.TemporaryDirectory() as folder, self.open() as opened:
            path = Path(folder) / Path(self.uri).name
            with path.open("wb") as copy:
                shutil.copyfileobj(opened, copy, 1 << 24)
            yield path


class LocalFile(InputFile):
    """A file on this machine."""

    def open(self) -> BinaryIO:
        """The file, to read and to seek in.

        Raises:
            BadInput: it cannot be read.
        """
        try:
            return self._path.open("rb")
        except OSError as error:
            raise BadInput(f"cannot read {self.uri}: {error.strerror or error}") from error

    @contextmanager
    def local_copy(self) -> Iterator[Path]:
        """Its own path."""
        yield self._path

    @property
    def _path(self) -> Path:
        return Path(self.uri.removeprefix("file://"))

    def _status(self) -> tuple[int, str]:
        path = self._path
        try:
            if path.exists() and not path.is_file():  # a pipe or a device: reading it may never end
                kind = "a directory" if path.is_dir() else "no regular file"
                raise BadInput(f"{self.uri} is {kind}, not a file")
            status = path.stat()
        except FileNotFoundError as error:
            raise BadInput(f"no file {self.uri}") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            reason = getattr(error, "strerror", None) or error
            raise BadInput(f"cannot read {self.uri}: {reason}") from error
        return status.st_size, str(status.st_mtime_ns)


class RemoteFile(InputFile):
    """An object in a bucket, or in another store that fsspec knows."""

    def __init__(self, uri: str) -> None:
        folder, _, self._name = uri.rpartition("/")
        self._store = open_store(folder)
        super().__init__(uri)
        self._checked = time.monotonic()

    def open(self) -> BinaryIO:
        """The object, to read and to seek in.

        Raises:
            BadInput: it cannot be read.
        """
        return self._store.open(self._name)

    def is_as_it_was(self) -> bool:
        """Whether size and stamp are those at the start, or were a few seconds ago."""
        if time.monotonic() < self._checked + REMOTE_CHECK_S:
            return True
        self._checked = time.monotonic()
        return super().is_as_it_was()

    def _status(self) -> tuple[int, str]:
        found = next((info for info in self._store.list(self._name) if info.name == self._name), None)
        if found is None:
            raise ObjectMissing(f"there is no {self.uri}")
        return found.size, str(found.modified or "")


def input_file(uri: str) -> InputFile:
    """The file at a path or URI.

    Raises:
        BadInput: there is none, or it cannot be asked for.
    """
    return LocalFile(uri) if "://" not in uri or uri.startswith("file://") else RemoteFile(uri)
