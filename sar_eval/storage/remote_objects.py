"""A bucket as a store of objects, through fsspec: S3, Google Cloud, memory, and what else it knows."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, BinaryIO, TypeVar, cast

from sar_eval.errors import BadInput, MissingExtra, StorageFailed
from sar_eval.storage.object_errors import NO_BUCKET, Fault, fault, is_transient
from sar_eval.storage.objects import (
    PROBE,
    READERS,
    Names,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    check_name,
)
from sar_eval.storage.retries import Retries

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
GCS_TRIES = 2
SLOWEST = 1_000_000  # bytes a second of an upload: a slower one has failed
WHOLE = 5 * 2**30  # bytes: below it one request writes an object, so that a crash leaves no parts of it
BUFFER = 1 << 20  # bytes that a file object reads ahead
CLOCKS = ("LastModified", "mtime", "updated", "last_modified", "created")  # what stores call it
ONE_AT_A_TIME = threading.Lock()  # for stores in memory, whose "create" is a look and then a write

T = TypeVar("T")


class RemoteStore(ObjectStore):
    """Objects in a bucket. On S3 only our own retries are on: nested ones would multiply."""

    def __init__(self, uri: str, retries: Retries) -> None:
        self.protocol = uri.partition("://")[0]
        if EXTRAS.get(self.protocol) == "gcs":  # whose client tries each six times by itself
            retries = replace(retries, tries=min(retries.tries, GCS_TRIES))
        super().__init__(uri, retries)
        self._class = _file_system(self.protocol, uri)
        self._base: str = self._class._strip_protocol(uri).rstrip("/")
        self._opened: tuple[int, Any] | None = None

    def read(self, name: str) -> bytes:
        """See `ObjectStore`."""
        options = (
            {"max_concurrency": 1} if EXTRAS.get(self.protocol) == "s3" else {}
        )  # else it asks for the size first
        path = self._path(name)
        return self._reading(name, lambda: bytes(self._files.cat_file(path, **options)))

    def open(self, name: str) -> BinaryIO:
        """See `ObjectStore`."""
        path = self._path(name)
        size = int(self._reading(name, lambda: self._info(path))["size"])

        def read(start: int, end: int) -> bytes:
            return self._reading(name, lambda: bytes(self._files.cat_file(path, start=start, end=end)))

        return cast(BinaryIO, io.BufferedReader(Ranges(size, read), BUFFER))

    def write(self, name: str, data: bytes) -> None:
        """See `ObjectStore`."""
        path = self._path(name)
        self._writing(name, lambda: self._put(path, data, "overwrite"))

    def create(self, name: str, data: bytes) -> bool:
        """See `ObjectStore`. By `If-None-Match: *` on S3 and `ifGenerationMatch=0` on Google Cloud."""
        path = self._path(name)
        # Whether an answer was lost, so that the object may be our own; gcsfs tries again by itself.
        lost = EXTRAS.get(self.protocol) == "gcs"

        def attempt() -> bool:
            nonlocal lost
            try:
                self._put(path, data, "create")
            except Exception as error:
                kind = fault(error).kind
                if kind != "exists":
                    lost = lost or kind == "transient"
                    raise
                return False
            return True

        return self._writing(name, attempt) or (lost and self._has(name, data))

    def _has(self, name: str, data: bytes) -> bool:
        """Whether an object has these bytes; not if it was deleted meanwhile."""
        try:
            return self.read(name) == data
        except ObjectMissing:
            return False

    def exists(self, name: str) -> bool:
        """See `ObjectStore`."""
        path = self._path(name)
        try:
            return bool(self._reading(name, lambda: self._info(path)))
        except ObjectMissing:
            return False

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See `ObjectStore`. The listing is held in memory: some hundred bytes an object."""
        parent, _, leaf = prefix.rpartition("/")
        folder = f"{self._base}/{check_name(parent)}" if parent else self._base
        options = {"prefix": leaf} if leaf and self.protocol in EXTRAS else {}
        found = self._listing(folder, lambda: self._files.find(folder, detail=True, **options))
        for path in sorted(found):
            name = path.removeprefix(f"{self._base}/")
            if name.startswith(prefix) and not path.endswith("/"):
                yield ObjectInfo(name, int(found[path]["size"]), _modified(found[path]))

    def folders(self, prefix: str) -> Names:
        """See `ObjectStore`."""
        folder = f"{self._base}/{check_name(prefix.rstrip('/'))}" if prefix else self._base
        found = self._listing(folder, lambda: {e["name"]: e for e in self._files.ls(folder, detail=True)})
        paths = (path for path, entry in found.items() if entry["type"] == "directory")
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def delete(self, names: Iterable[str]) -> None:
        """See `ObjectStore`."""
        with ThreadPoolExecutor(READERS, thread_name_prefix="delete") as pool:
            for _ in pool.map(self._delete, names):
                continue

    def sweep(self) -> Names:
        """See `ObjectStore`: objects that `check_writable` could not delete; an upload leaves no parts."""
        left = [info.name for info in self.list(PROBE)]
        self.delete(left)
        return left

    @property
    def _files(self) -> Any:
        """The file system of fsspec; another one after a fork, as its connections cannot be shared."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _connected(self.protocol, self.retries.timeout_s, *_account())
        return self._opened[1]

    def _path(self, name: str) -> str:
        return f"{self._base}/{check_name(name)}"

    def _info(self, path: str) -> Mapping[str, Any]:
        found = self._files.info(path)
        if found["type"] != "file":
            raise FileNotFoundError(path)
        return cast(Mapping[str, Any], found)

    def _put(self, path: str, data: bytes, mode: str) -> None:
        options: dict[str, Any] = {"chunksize": WHOLE} if self.protocol in EXTRAS else {}
        if self._class.async_impl:
            # The clients' own limit does not hold while they wait for "100 Continue".
            options["timeout"] = self.retries.timeout_s + len(data) / SLOWEST
        with ONE_AT_A_TIME if self.protocol == "memory" else nullcontext():
            self._files.pipe_file(path, data, mode=mode, **options)

    def _delete(self, name: str) -> None:
        path = self._path(name)

        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._files.rm_file(path)

        self._writing(name, attempt)

    def _reading(self, name: str, action: Callable[[], T]) -> T:
        try:
            return self.retries.call(action, is_transient)
        except Exception as error:
            found = fault(error)
            if found.kind == "missing":
                raise ObjectMissing(f"there is no {self.where(name)}") from error
            raise BadInput(f"cannot read {self.where(name)}: {self._told(found)}") from error

    def _listing(self, folder: str, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return self.retries.call(action, is_transient)
        except Exception as error:
            found = fault(error)
            if found.kind == "missing":
                return {}
            where = f"{self.protocol}://{folder.lstrip('/')}"
            raise BadInput(f"cannot list {where}: {self._told(found)}") from error

    def _writing(self, name: str, action: Callable[[], T]) -> T:
        try:
            return self.retries.call(action, is_transient)
        except Exception as error:
            found = fault(error)
            why = NO_BUCKET if found.kind == "missing" else self._told(found)
            raise StorageFailed(
                f"cannot write {self.where(name)}: {why}. Everything stored so far stays "
                "valid; mend this and run the same command again to continue"
            ) from error

    def _told(self, found: Fault) -> str:
        if found.kind != "transient":
            return found.text
        return f"the store failed {self.retries.tries} times in a row, at last with {found.text}"


class Ranges(io.RawIOBase):
    """An object as a raw file, each read of which is a request for a range."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size, self._read, self._at = size, read, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._read(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _file_system(protocol: str, uri: str) -> Any:
    """The class of fsspec for a protocol."""
    import fsspec

    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        way_on = f"pip install 'sar-eval[{extra}]'" if extra else str(error)
        raise MissingExtra(f"{uri}: a package for {protocol}:// is not installed: {way_on}") from error
    except ValueError as error:
        raise BadInput(
            f"{uri}: unknown kind of store {protocol}://: use a folder, s3:// or gs://"
        ) from error


def _account() -> tuple[int, str]:
    """What a connection depends on: this process, and what its environment says of accounts and servers."""
    names = sorted(
        name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "FSSPEC_", "STORAGE_", "HF_"))
    )
    return os.getpid(), repr([(name, os.environ[name]) for name in names])


@cache
def _connected(protocol: str, timeout_s: float, *_account: object) -> Any:
    """A file system without caches and without retries of its own; it takes half a second to make one."""
    import fsspec

    file_system = fsspec.get_filesystem_class(protocol)
    if protocol == "memory":
        return file_system()
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if EXTRAS.get(protocol) == "s3":
        options["config_kwargs"] = {
            "http_session_cls": _single_tries(),
            "retries": {"total_max_attempts": 1},
            "connect_timeout": min(10.0, timeout_s),
            "read_timeout": timeout_s,
            "max_pool_connections": 2 * READERS,
        }
    elif EXTRAS.get(protocol) == "gcs":  # it logs each failure with a traceback; ours are told once
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    connected = file_system(**options)
    connected.retries = 1  # of s3fs
    return connected


def _single_tries() -> Any:
    """aiobotocore's session without the silent second try that aiohttp makes on a dropped connection.

    After it, `create` could not know that the object in its way is its own.
    """
    from aiobotocore.httpsession import AIOHTTPSession

    class SingleTries(AIOHTTPSession):  # type: ignore[misc]
        async def _get_session(self, proxy_url: str | None) -> Any:
            session = await super()._get_session(proxy_url)
            session._retry_connection = False
            return session

    return SingleTries


def _modified(entry: Mapping[str, Any]) -> float:
    value = next((entry[key] for key in CLOCKS if entry.get(key) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime) else float(value)
