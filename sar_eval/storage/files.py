"""Writing files whole or not at all, and reading Parquet."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput, StorageFailed


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into an error that says what is safe."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else (error.strerror or str(error))
        raise StorageFailed(
            f"cannot write {path}: {why}. What is stored already stays valid; "
            "mend this and run the same command again to go on"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a mixture."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON the same way."""
    write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(path: Path) -> list[dict[str, Any]]:
    """All rows of a Parquet file.

    Raises:
        BadInput: it is no readable Parquet file.
    """
    try:
        return list(pq.read_table(path).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is no readable Parquet file: {error}") from error
