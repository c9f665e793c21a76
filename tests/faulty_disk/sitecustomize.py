"""A disk that fails, for every Python process that has this folder on its PYTHONPATH.

SAR_EVAL_TEST_DISK is `call:error:path:after`: calls on paths with that part in them fail with that errno,
after so many in this process went well; the error OK makes `flock` succeed for everybody. See the fixture
`faulty_disk`.
"""

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALL, ERROR, PART, AFTER = os.environ["SAR_EVAL_TEST_DISK"].split(":")
left = int(AFTER)


def _path(target: Any) -> str:
    number = target if isinstance(target, int) else getattr(target, "fileno", lambda: None)()
    try:
        return (
            str(Path(f"/proc/self/fd/{number}").readlink()) if number is not None else os.fsdecode(target)
        )
    except (OSError, TypeError):
        return ""


def _fail(target: Any) -> bool:
    """Whether this call on this path is one to break; raises if so, unless its error is OK."""
    global left  # noqa: PLW0603
    path = _path(target)
    if PART not in path:
        return False
    left -= 1
    if left >= 0:
        return False
    if ERROR == "OK":
        return True
    number = getattr(errno, ERROR)
    raise OSError(number, os.strerror(number), path)


def _failing(function: Callable[..., Any], which: int = 0) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        return None if _fail(arguments[which]) else function(*arguments, **named)

    return call


class _Raw(io.FileIO):
    def write(self, data: Any) -> int:
        _fail(self.name)
        return super().write(data)


def _open(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
    if not set(mode) & set("wax") or isinstance(file, int):
        return real_open(file, mode, *arguments, **named)
    if CALL == "open":
        _fail(file)
    if CALL == "write" and mode == "wb":
        return io.BufferedWriter(_Raw(file, "w"))
    return real_open(file, mode, *arguments, **named)


real_open = io.open
if CALL in ("open", "write"):
    builtins.open = io.open = _open
if CALL == "open":
    os.open = _failing(os.open)
if CALL == "write":
    os.pwrite = _failing(os.pwrite)
if CALL == "fsync":
    os.fsync = _failing(os.fsync)
if CALL == "rename":
    os.replace, os.rename = _failing(os.replace, 1), _failing(os.rename, 1)
if CALL == "flock":
    fcntl.flock = _failing(fcntl.flock)
if CALL == "mkdir":
    os.mkdir = _failing(os.mkdir)
if CALL == "unlink":
    os.unlink = _failing(os.unlink)
