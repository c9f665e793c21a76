"""Digests of files of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits; an unchanged file is read once in a process."""
    status = path.stat()
    return _digest(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, *_state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_of_files(weights: Path, others: Iterable[Path], dtype: str = "float32") -> str:
    """What a version says of a network: 8 digits of the weights' SHA-256, 8 of all other files', the dtype.

    The dtype is named if it is not float32: the same picture has another score then.
    """
    digests = "".join(file_digest(path) for path in others)
    parts = [file_digest(weights)[:8], hashlib.sha256(digests.encode()).hexdigest()[:8]]
    return "+".join([*parts, dtype] if dtype != "float32" else parts)
