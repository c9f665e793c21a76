"""Stage: download published weights into the cache, so that a broken line costs nothing twice.

A download goes to `<name>.part` and takes its name after its checksum fits. What an interrupted one
left is gone on with (HTTP Range), two processes at once make one download (a file lock). Where no
checksum is published, that of the first download is noted, and later ones must have it; that the
first one is complete is then known by its length alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sar_eval import __version__
from sar_eval.errors import BadInput, Incomplete, StorageFailed
from sar_eval.tensors.published_weights import RemoteFile, cache_folder, checksum_path, recorded_sha256

CHUNK = 1 << 20
TRIES = 5  # in a row without a new byte
TIMEOUT_S = 30.0
Progress = Callable[[str, int, int], None]  # file, bytes so far, bytes in all (0 if unknown)


def fetch(
    files: tuple[RemoteFile, ...],
    *,
    progress: Progress = lambda name, done, total: None,
    timeout_s: float = TIMEOUT_S,
    pause_s: float = 1.0,
) -> list[Path]:
    """Download what the cache lacks and return where all files are.

    `SAR_EVAL_MIRROR=https://host` asks that host for the same paths. `SAR_EVAL_OFFLINE=1` or
    `HF_HUB_OFFLINE=1` downloads nothing.

    Raises:
        BadInput: offline, or the server has no such file.
        Incomplete: the server gave up or the checksum is wrong; what came so far is kept, or removed.
        StorageFailed: the cache cannot be written.
    """
    return [_fetch_one(file, progress, timeout_s, pause_s) for file in files]


def _fetch_one(file: RemoteFile, progress: Progress, timeout_s: float, pause_s: float) -> Path:
    path = cache_folder() / file.name
    if path.is_file():
        progress(file.name, path.stat().st_size, path.stat().st_size)
        return path
    _refuse_offline(file, path)
    with _writing(path), _alone(path):
        if path.is_file():  # another process was faster
            return path
        part = path.with_name(f"{path.name}.part")
        _download(file, part, progress, timeout_s, pause_s)
        _check(file, part, path)
        part.replace(path)
    return path


def _refuse_offline(file: RemoteFile, path: Path) -> None:
    if any(os.environ.get(name) == "1" for name in ("SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE")):
        raise BadInput(f"offline, and {path} is not there: get {file.url} elsewhere and put it there")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, urllib.error.URLError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror
        raise StorageFailed(
            f"cannot write {path.parent}: {why}. Make room or set SAR_EVAL_CACHE, and run the command again"
        ) from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process downloads this file."""
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(file: RemoteFile, part: Path, progress: Progress, timeout_s: float, pause_s: float) -> None:
    """Ask until everything is there; each try goes on where the last one broke off."""
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(file, part, progress, timeout_s):
                return
            why = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise BadInput(f"{_address(file)} answers {error.code} {error.reason}") from error
            why = f"{error.code} {error.reason}"
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            why = str(getattr(error, "reason", None) or error or type(error).__name__)
        size = part.stat().st_size if part.exists() else 0
        failed = 0 if size > before else failed + 1
        if failed >= TRIES:
            raise Incomplete(
                f"{_address(file)}: {why}; {size} bytes are kept: run the same command again to go on"
            )
        time.sleep(pause_s * failed)


def _receive(file: RemoteFile, part: Path, progress: Progress, timeout_s: float) -> bool:
    """One request's worth of bytes, after those that are there; whether that is all."""
    have = part.stat().st_size if part.exists() else 0
    with _open(file, have, timeout_s) as answer:
        if have and answer.status != 206:  # this server starts anew
            have = 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if have else "wb") as target:
            while data := answer.read(CHUNK):
                target.write(data)
                have += len(data)
                progress(file.name, have, total)
    return have >= total


def _open(file: RemoteFile, have: int, timeout_s: float) -> Any:
    headers = {"User-Agent": f"sar-eval/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(_address(file), headers=headers)  # noqa: S310 - our own table
    try:
        return urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is left to ask for: all is there already, or what is there is not of this file.
        return _open(file, 0, timeout_s)


def _address(file: RemoteFile) -> str:
    mirror = os.environ.get("SAR_EVAL_MIRROR", "").rstrip("/")
    return mirror + urlsplit(file.url).path if mirror else file.url


def _check(file: RemoteFile, part: Path, path: Path) -> None:
    """Published checksum, else that of the first download, else note this one as the first."""
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    expected = file.sha256 or recorded_sha256(path)
    if not found.startswith(expected):
        part.unlink()
        than = "published" if file.sha256 else f"at the first download (noted in {checksum_path(path)})"
        raise Incomplete(
            f"{_address(file)} gave other bytes than {than} (SHA-256 {found[: len(expected)]}, "
            f"expected {expected}); they are removed. Run the command again, or get the file elsewhere"
        )
    if not expected:
        checksum_path(path).write_text(f"{found}  {path.name}\n")
