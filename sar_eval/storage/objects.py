"""A place for objects: a folder, or a bucket of S3, Google Cloud or any other store that fsspec knows.

Objects are written whole or not at all, and one can be created if no other is there: on that the commit
protocol of sets stands. Nothing is renamed and nothing is locked, as buckets cannot.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, StorageFailed
from sar_eval.storage.object_errors import NO_CONDITION, fault
from sar_eval.storage.retries import PATIENT, Retries

READERS = 32  # objects that are read at a time
PROBES = 4  # tries of `check_writable`, whose answer somebody waits for
PROBE = "probe-"  # begins the name of what `check_writable` writes
_NAME = re.compile(r"[A-Za-z0-9._=+-]+(?:/[A-Za-z0-9._=+-]+)*")  # no blanks, no globs, no queries

Names: TypeAlias = list[str]  # `ObjectStore.list` hides the type inside the class


class ObjectMissing(BadInput):
    """There is no object of this name."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing has it: name, bytes, and when it was written, by the store's clock.

    `modified` is in seconds since 1970.
    """

    name: str
    size: int
    modified: float


class ObjectStore(ABC):
    """Objects below one URI. Pickles as its URI; threads may share it.

    Names are relative, with `/` between folders: letters, digits and `._=+-`.

    Whatever fails for a passing reason is tried again (`Retries`). What remains raises `BadInput` where
    something was read, and `StorageFailed` where something was written.
    """

    def __init__(self, uri: str, retries: Retries) -> None:
        self.uri, self.retries = uri, retries

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.uri, self.retries)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of an object.

        Raises:
            ObjectMissing: naming URI and object.
            BadInput: it cannot be read.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write an object: whole or not at all. One of the same name is replaced.

        Raises:
            StorageFailed: it could not be written.
        """

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one; of several writers at once, one succeeds.

        Returns:
            Whether this call wrote it. Where the answer to an earlier try was lost, an object of the same
            bytes counts as its own; on Google Cloud always, as gcsfs hides whether one was.

        Raises:
            StorageFailed: it could not be written.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects whose names begin with a prefix, in all folders below, by name.

        Args:
            prefix: text: `done/` is a folder, `data/part-000001` some of the objects in one; "" is all.
        """

    @abstractmethod
    def folders(self, prefix: str) -> Names:
        """Last parts of the names of the folders directly in a folder, sorted; none if it is missing."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """An object as a file that can be sought: only what is read of it travels.

        Raises:
            ObjectMissing: naming URI and object.
        """

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete objects. One that is gone already is no error.

        Raises:
            StorageFailed: no permission.
        """

    @abstractmethod
    def sweep(self) -> Names:
        """Remove what writers that died left behind, and return its names."""

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Names and bytes of objects, `READERS` at a time and in memory, in the order of the names.

        Raises:
            ObjectMissing: one of them is missing; when its turn comes.
        """
        waiting: deque[tuple[str, Future[bytes]]] = deque()
        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
            try:
                for name in names:
                    waiting.append((name, pool.submit(self.read, name)))
                    if len(waiting) > READERS:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def check_writable(self) -> None:
        """Write, list, read and delete an object, and see that none is created where one is.

        Raises:
            BadInput: what does not work, and how to mend it.
        """
        name = f"{PROBE}{uuid.uuid4().hex}"
        store = open_store(self.uri, replace(self.retries, tries=min(PROBES, self.retries.tries)))
        try:
            store.write(name, b"1")
            created = store.create(name, b"2")
            next(store.list(name), None)
            if created or store.read(name) != b"1":
                raise BadInput(f"{self.uri}: {NO_CONDITION}: use another store")
            store.delete([name])
        except StorageFailed as error:
            raise BadInput(f"cannot write to {self.uri}: {fault(error.__cause__ or error).text}") from error

    def where(self, name: str) -> str:
        """URI and name of an object, for messages."""
        return f"{self.uri.rstrip('/')}/{name}"


def check_name(name: str) -> str:
    """The name, if it is one of an object.

    Raises:
        BadInput: it leads out of the store, or has characters that some stores read in their own way.
    """
    if not _NAME.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise BadInput(f"{shorten(name)} is no name of an object in a set")
    return name


def check_lasting(uri: str) -> None:
    """Refuse a place for a set that is gone with the process, or that other processes do not see.

    Raises:
        BadInput: `memory://`.
    """
    if uri.startswith("memory://"):
        raise BadInput(
            f"{uri} lasts as long as one process, and each worker is another: use a folder or a bucket"
        )


def open_store(uri: str | Path, retries: Retries = PATIENT) -> ObjectStore:
    """The store at a URI; nothing is written and nothing is asked yet.

    Args:
        uri: a folder (it need not exist), `file://`, `s3://bucket/path`, `gs://bucket/path`,
            `memory://path`, or another URI of fsspec.
        retries: how often and how long to try.

    Raises:
        BadInput: no address, or no such kind of store.
        MissingExtra: the package for this kind is not installed.
    """
    from sar_eval.storage.local_objects import LocalStore
    from sar_eval.storage.remote_objects import RemoteStore

    text = str(uri)
    if not text:
        raise BadInput("an empty address: give the folder or URI of a set")
    if isinstance(uri, Path) or "://" not in text:
        return LocalStore(text, Path(text), retries)
    if text.startswith("file://"):
        return LocalStore(text, Path(text.removeprefix("file://")), retries)
    return RemoteStore(text.rstrip("/") if text.rstrip("/")[-1] != ":" else text, retries)
