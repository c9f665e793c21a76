"""Stage: download published weights into the cache, so that a broken line costs nothing twice.

A download goes to `<name>.part` and takes its name after its checksum fits. What an interrupted one
left is gone on with (HTTP Range), two processes at once make one download (a file lock). Where no
checksum is published, that of the first download is noted, and later ones must have it; the first one
must be of the right kind (see `fetched_contents`), and have the checksum that the hub announces for large
files, else that it is complete is known by its length alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
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
from sar_eval.documents import shorten
from sar_eval.errors import BadInput, Incomplete, StorageFailed
from sar_eval.stages.fetched_contents import why_not
from sar_eval.tensors.hub import is_offline
from sar_eval.tensors.published_weights import cache_folder, checksum_path, recorded_sha256
from sar_eval.tensors.remote_file import RemoteFile

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

    `SAR_EVAL_MIRROR=https://host` asks that host for the same paths. `SAR_EVAL_OFFLINE=1`,
    `HF_HUB_OFFLINE=1` or `TRANSFORMERS_OFFLINE=1` downloads nothing.

    Raises:
        BadInput: offline, or the server has no such file.
        Incomplete: the server gave up or the checksum is wrong; what came so far is kept, or removed.
        StorageFailed: the cache cannot be written.
    """
    return [_fetch_one(file, progress, timeout_s, pause_s) for file in files]


def _fetch_one(file: RemoteFile, progress: Progress, timeout_s: float, pause_s: float) -> Path:
    path = cache_folder() / file.name
    if path.is_file():
        _refuse_wrong_contents(file, path)
        progress(file.name, path.stat().st_size, path.stat().st_size)
        return path
    _refuse_offline(file, path)
    with _writing(path), _alone(path):
        if path.is_file():  # another process was faster
            return path
        part = path.with_name(f"{path.name}.part")
        announced = _Announced()
        _download(file, part, announced, progress, timeout_s, pause_s)
        _check(file, part, path, announced.sha256)
        part.replace(path)
        _version_path(part).unlink(missing_ok=True)
    return path


def _refuse_wrong_contents(file: RemoteFile, path: Path) -> None:
    """What is in the cache may be from an earlier version, which took any answer for the file."""
    if not file.sha256 and (why := why_not(path, file.name)):
        raise BadInput(
            f"{path} {why}: remove it and {checksum_path(path)}, and run the command again; or get "
            f"{file.url} elsewhere and put it there"
        )


def _refuse_offline(file: RemoteFile, path: Path) -> None:
    if is_offline():
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


class _Announced(urllib.request.HTTPRedirectHandler):
    """Keeps the SHA-256 that the hub says of a large file in the answer that leads to its store."""

    sha256 = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Follow as usual."""
        tag = str(headers.get("X-Linked-Etag") or "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            self.sha256 = tag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(
    file: RemoteFile,
    part: Path,
    announced: _Announced,
    progress: Progress,
    timeout_s: float,
    pause_s: float,
) -> None:
    """Ask until everything is there; each try goes on where the last one broke off."""
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(file, part, announced, progress, timeout_s):
                return
            why = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what is there is longer than the file, or not of this file
                part.unlink(missing_ok=True)
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


def _receive(
    file: RemoteFile, part: Path, announced: _Announced, progress: Progress, timeout_s: float
) -> bool:
    """One request's worth of bytes, after those that are there; whether that is all."""
    have, version = part.stat().st_size if part.exists() else 0, _version(part)
    with _open(file, have, version, announced, timeout_s) as answer:
        now = _version_of(answer)
        if have and (answer.status != 206 or (version and now != version)):
            if answer.status == 206:  # the rest of another file: ask for all of it
                part.unlink()
                return False
            have = 0  # this server starts anew
        total = have + _length(answer)
        if not have:
            _version_path(part).write_text(now, encoding="utf-8")
        with part.open("ab" if have else "wb") as target:
            while data := answer.read(CHUNK):
                target.write(data)
                have += len(data)
                progress(file.name, have, total)
    return have >= total


def _open(file: RemoteFile, have: int, version: str, announced: _Announced, timeout_s: float) -> Any:
    headers = {"User-Agent": f"sar-eval/{__version__}"}
    if have:  # If-Range: the rest only if it is the rest of the same file
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
    request = urllib.request.Request(_address(file), headers=headers)  # noqa: S310 - http or https, see there
    return urllib.request.build_opener(announced).open(request, timeout=timeout_s)


def _version_of(answer: Any) -> str:
    """What identifies the file's version for `If-Range`: a strong entity tag, else its date; "" without."""
    tag = str(answer.headers.get("ETag") or "")
    return tag if tag.startswith('"') else str(answer.headers.get("Last-Modified") or "")


def _version_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _version(part: Path) -> str:
    """The version that the partial file is of, "" if unknown."""
    path = _version_path(part)
    text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    return text if text.isascii() and text.isprintable() else ""


def _length(answer: Any) -> int:
    """Bytes that the answer announces, 0 if it does not."""
    text = str(answer.headers.get("Content-Length") or "0").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise HTTPException(f"its answer has the Content-Length {shorten(text)}")
    return int(text)


def _address(file: RemoteFile) -> str:
    mirror = os.environ.get("SAR_EVAL_MIRROR", "").rstrip("/")
    if not mirror:
        return file.url
    if not re.match(r"https?://[^/]", mirror):
        raise BadInput(f"SAR_EVAL_MIRROR is {shorten(mirror)}: it must begin with https:// or http://")
    return mirror + urlsplit(file.url).path


def _check(file: RemoteFile, part: Path, path: Path, announced: str) -> None:
    """Published checksum, else that of the first download; else the announced one, a look, and a note."""
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    noted = "" if file.sha256 else recorded_sha256(path)
    expected = file.sha256 or noted or announced
    if not found.startswith(expected):
        _remove(part)
        than = f"at the first download (noted in {checksum_path(path)})" if noted else "published"
        anew = "" if not noted else f"; if its publisher changed it, remove {checksum_path(path)}"
        raise Incomplete(
            f"{_address(file)} gave other bytes than {than} (SHA-256 {found[: len(expected)]}, expected "
            f"{expected}); they are removed. Run the command again, or get the file elsewhere{anew}"
        )
    if not (file.sha256 or noted):
        if why := why_not(part, file.name):
            _remove(part)
            raise Incomplete(
                f"what {_address(file)} gave {why}; it is removed. Run the command again where the address "
                f"can be reached, or get the file elsewhere and put it at {path}"
            )
        checksum_path(path).write_text(f"{found}  {path.name}\n")


def _remove(part: Path) -> None:
    part.unlink()
    _version_path(part).unlink(missing_ok=True)
