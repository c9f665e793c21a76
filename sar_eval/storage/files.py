"""Write files atomically, and read Parquet files."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput, StorageFailed

if TYPE_CHECKING:
    from typing_extensions import Buffer


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Convert an OSError into a StorageFailed error that explains how to continue."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = "the disk is full" if full else (error.strerror or str(error))
        raise StorageFailed(
            f"cannot write {path}: {cause}. Everything stored so far stays valid; "
            "fix this and run the same command again to continue"
        ) from error


@contextmanager
def write_stream(path: Path, *, make_folder: bool = True) -> Iterator[BinaryIO]:
    """Write a file atomically: a crash leaves the old contents or the new ones.

    With `make_folder=False` a folder that is gone is an error, not made anew.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: Buffer, *, make_folder: bool = True) -> None:
    """Write a file atomically (see `write_stream`)."""
    with write_stream(path, make_folder=make_folder) as file:
        file.write(data)


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically."""
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
        BadInput: the file cannot be read as Parquet.
    """
    try:
        return list(pq.read_table(path).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is not a readable Parquet file: {error}") from error
