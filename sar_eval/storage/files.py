"""Write files atomically, and read Parquet files."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.errors import BadInput, StorageFailed

TEMPORARY = re.compile(r"(.+)\.\d+\.tmp")  # the file that it was to become, and the writer's pid
CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full, or your quota of it",
    errno.EMFILE: "too many open files (see `ulimit -n`)",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk failed (input/output error)",
}
# What file systems say that cannot sync: some FUSE for files, CIFS and VirtualBox for folders too. Their
# data is as safe as they make it; EIO and ENOSPC, which also come from fsync, are failed writes.
NO_FSYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
NO_FOLDER_FSYNC = (*NO_FSYNC, errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR)
BATCH_ROWS = 2048  # that become Python objects at a time
MAX_COLUMNS = (
    4_000_000_000  # bytes of the columns that are read: a small file may hold any number of copies
)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Convert an OSError into a StorageFailed error that explains how to continue."""
    try:
        yield
    except OSError as error:
        cause = CAUSES.get(error.errno or 0) or error.strerror or str(error)
        raise StorageFailed(
            f"cannot write {path}: {cause}. Everything stored so far stays valid; "
            "fix this and run the same command again to continue"
        ) from error


@contextmanager
def write_stream(path: Path) -> Iterator[BinaryIO]:
    """Write a file atomically: a crash leaves the old contents or the new ones."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name: after its bytes are on disk, so that a crash leaves no half of it."""
    with temporary.open("rb") as file:
        sync_file(file)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_file(file: BinaryIO) -> None:
    """Wait until what was written to a file is on the disk, as far as its file system can say so."""
    _sync(file.fileno(), NO_FSYNC)


def link_or_copy(source: Path, path: Path) -> None:
    """Give a finished file a second name; where the file system has no hard links, copy it."""
    with storage_errors(path):
        if path.exists():
            return
        try:
            os.link(source, path)
        except OSError:
            with write_stream(path) as file, source.open("rb") as data:
                shutil.copyfileobj(data, file)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically (see `write_stream`)."""
    with write_stream(path) as file:
        file.write(data)


def check_output(where: str, path: Path, *, replaces_data: bool = False) -> Path:
    """The file to write for a name that somebody gives: a link's target, so that the link stays.

    Args:
        where: flag, for the message.
        path: need not exist. An older result is replaced.
        replaces_data: whether a Parquet file is such a result.

    Raises:
        BadInput: a folder or a device is there, or what cannot be made again: a Parquet file or a
            run's manifest.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise BadInput(f"{where} {path} is {kind}: name a file")
    with storage_errors(path):
        target = Path(os.path.realpath(path))
        for file in (path.absolute(), target):
            if file.parts[1:2] in (("dev",), ("proc",)) and file.parts[1:3] != ("dev", "shm"):
                raise BadInput(f"{where} {path} is a device, or a process's: name a file")
        if (
            target.is_file()
            and not replaces_data
            and (target.name == "run.json" or _begins_as_parquet(target))
        ):
            raise BadInput(f"{where} {path} holds a run or its data, which stays: give another name")
    return target if path.is_symlink() else path


def _begins_as_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically."""
    write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def remove_own_temporaries(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what `write_bytes` leaves if its process dies: regular files called `<name>.<pid>.tmp`.

    Anything else is somebody else's and stays. Call it only for folders of a run.

    Args:
        folder: need not exist.
        names: of the files that we write there.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            match = TEMPORARY.fullmatch(entry.name)
            if match and names.fullmatch(match[1]) and entry.is_file(follow_symlinks=False):
                Path(entry).unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, as far as its file system can say so."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in NO_FOLDER_FSYNC:
            return
        raise
    try:
        _sync(descriptor, NO_FOLDER_FSYNC)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, ignored: tuple[int, ...]) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in ignored:
            raise


def parquet_shape(path: Path) -> tuple[int, dict[str, bool]]:
    """Number of rows of a Parquet file, and its columns, each with whether there are bytes in it (images).

    Raises:
        BadInput: the file cannot be read as Parquet, or has two columns of one name.
    """
    with _parquet(path) as file:
        schema = file.schema_arrow
        if twice := [name for name in schema.names if schema.names.count(name) > 1]:
            raise BadInput(f"{path}: the column {twice[0]!r} is there twice")
        columns = {column.name: holds_bytes(column.type) for column in schema}
        return file.metadata.num_rows, columns


def read_batches(
    path: Path, columns: Sequence[str]
) -> Iterator[tuple[list[str], Iterable[tuple[Any, ...]]]]:
    """Names and rows of some columns of a Parquet file, batch by batch; the other columns are not read.

    Raises:
        BadInput: the file cannot be read as Parquet, or holds text that is not UTF-8, dates beyond
            Python's, or more than `MAX_COLUMNS` bytes in these columns.
    """
    total = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
            values = [_plain(column) for column in batch.columns]
            total += sum(column.nbytes for column in values)
            if total > MAX_COLUMNS:
                raise BadInput(f"{path}: over {MAX_COLUMNS:,} bytes in {', '.join(columns)}")
            yield batch.schema.names, zip(*map(column_values, values), strict=True)


def column_values(column: pa.Array) -> list[Any]:
    """Python values; maps as dictionaries, which is asked for where there may be some, as it takes time."""
    column = _plain(column)
    is_nested = pa.types.is_nested(column.type)
    return list(column.to_pylist(maps_as_pydicts="strict") if is_nested else column.to_pylist())


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise BadInput(f"{path} is {'a directory' if path.is_dir() else 'no regular file'}, not a file")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise BadInput(f"no file {path}") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        raise BadInput(f"{path} is not a readable Parquet file: {error}") from error


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether there are bytes, as those of images, in a column of this type."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
