"""Standard output and error that never end a run: a full disk, a closed pipe, a terminal that is gone."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SafeOutput(io.FileIO):
    """A file descriptor whose writes do not raise; the first error is kept."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written."""
        try:
            while (
                written := super().write(data)
            ) is None:  # the pipe is full, and of the kind that says so
                select.select([], [self], [])
        except (OSError, ValueError) as error:
            self.error = self.error or (error if isinstance(error, OSError) else None)
            return memoryview(data).nbytes
        return written


@contextmanager
def safe_streams() -> Iterator[SafeOutput]:
    """Standard output and error that drop what cannot be written; yields the former.

    Streams that something else has put in their place, a test for one, are left alone.
    """
    _open_missing_descriptors()
    out, err = SafeOutput(1, "w", closefd=False), SafeOutput(2, "w", closefd=False)
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(out)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(err, line_buffering=True)
    try:
        yield out
    finally:
        flush()
        sys.stdout, sys.stderr = before


def flush() -> None:
    """Write what is buffered, as far as it can be written."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def lost_output(out: SafeOutput) -> str | None:
    """Why the output could not be written; None if it was, or if its reader went away on purpose."""
    flush()
    if out.error is None or out.error.errno == errno.EPIPE:
        return None
    return out.error.strerror or str(out.error)


def use_error_stream_for_output() -> None:
    """Let whatever this process prints go to standard error: standard output is the parent's."""
    _open_missing_descriptors()
    os.dup2(2, 1)


def _open_missing_descriptors() -> None:
    """Give a descriptor that is closed to /dev/null: the next file opened, a part say, would get it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _text(raw: SafeOutput, *, line_buffering: bool = False) -> io.TextIOWrapper:
    """Text in the locale's encoding; characters that it lacks are written as escapes."""
    buffered = io.BufferedWriter(raw)
    encoding = getattr(sys.__stdout__ or sys.__stderr__, "encoding", None)
    interactive = raw.isatty() or line_buffering
    return io.TextIOWrapper(buffered, encoding, errors="backslashreplace", line_buffering=interactive)
