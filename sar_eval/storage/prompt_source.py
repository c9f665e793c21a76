"""Files of any number of rows: what they are, whether they changed, and any range of their rows.

The digest of a file is SHA-256, its first 32 hex digits, of its size in decimal digits and then of the
SHA-256 digests of its chunks of `CHUNK` bytes, so that chunks are read and hashed concurrently. SHA-256,
as processors have instructions for it: twice the speed of BLAKE2b.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from sar_eval.documents import convert, parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.input_file import InputFile
from sar_eval.storage.line_index import ChunkLines, LineIndex, join_chunks, lines_of_chunk

CHUNK = 1 << 24  # bytes; part of the digest's definition
READERS = 8  # threads: some 40 MB each
MAGIC = b"SAR-EVAL ROWS 1\n"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is, as the set that is made from it keeps it.

    Attributes:
        size: in bytes.
        digest: of its bytes (see the module).
        rows: how many prompts it has.
        form: how it is read: the suffix of its name; "" for a folder.
        stamp: changes when the file is written, as its time does; "" if that is not known. Another stamp
            says that the digest must be looked at again, and no more.
    """

    size: int
    digest: str
    rows: int
    form: str
    stamp: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What one reading of a whole file gives: its digest, and the index of its lines."""

    digest: str
    lines: LineIndex


def scan(file: InputFile, *, lines: bool) -> Scan:
    """Read a file once, from several threads.

    Args:
        file: to read.
        lines: whether to find its lines, too.

    Raises:
        BadInput: it cannot be read.
    """
    starts = range(0, file.size, CHUNK)
    try:
        with ThreadPoolExecutor(READERS) as executor:
            chunks = list(executor.map(partial(_scan_chunk, file, lines=lines), starts))
    except OSError as error:
        raise BadInput(f"cannot read {file.uri}: {error.strerror or error}") from error
    total = hashlib.sha256(str(file.size).encode())
    for digest, _ in chunks:
        total.update(digest)
    return Scan(total.hexdigest()[:32], join_chunks([found for _, found in chunks if found is not None]))


def _scan_chunk(file: InputFile, start: int, *, lines: bool) -> tuple[bytes, ChunkLines | None]:
    with closing(file.open()) as opened:
        opened.seek(start)
        data = opened.read(CHUNK)
        found = lines_of_chunk(data, start, opened) if lines else None
    return hashlib.sha256(data).digest(), found


def pack_index(facts: FileFacts, lines: LineIndex | None = None) -> bytes:
    """What is known of a file, for later starts: a line of JSON, then the entries of its line index.

    The entries are two arrays of little-endian 64-bit numbers: rows, then offsets.
    """
    entries = len(lines.numbers) if lines else 0
    head = {name: getattr(facts, name) for name in FileFacts.__slots__} | {"entries": entries}
    arrays = (
        [np.asarray(part, dtype="<i8").tobytes() for part in (lines.numbers, lines.offsets)]
        if lines
        else []
    )
    return b"".join([MAGIC, json.dumps(head).encode(), b"\n", *arrays])


@dataclass(frozen=True, slots=True)
class _Head:
    size: int
    digest: str
    rows: int
    form: str
    stamp: str
    entries: int


def unpack_index(data: bytes, where: str) -> tuple[FileFacts, LineIndex]:
    """What `pack_index` gave.

    Raises:
        BadInput: it is damaged.
    """
    line, _, rest = data.removeprefix(MAGIC).partition(b"\n")
    if not data.startswith(MAGIC):
        raise BadInput(f"{where} is no index of a prompt file, or one of another version of sar-eval")
    head = convert(parse_json(line, where), _Head, where)
    if min(head.size, head.rows, head.entries) < 0 or len(rest) != 16 * head.entries:
        raise BadInput(f"{where} is damaged: it has {len(rest)} bytes of {head.entries} entries")
    numbers, offsets = np.frombuffer(rest, dtype="<i8").reshape(2, -1)
    for part, end in ((numbers, head.rows), (offsets, head.size)):
        if len(part) and (part[0] < 0 or part[-1] >= end or (np.diff(part) <= 0).any()):
            raise BadInput(f"{where} is damaged: its entries are not in order")
    if head.entries and numbers[0] != 0:
        raise BadInput(f"{where} is damaged: its first entry is not the first row")
    facts = FileFacts(head.size, head.digest, head.rows, head.form, head.stamp)
    return facts, LineIndex(head.rows, numbers.tolist(), offsets.tolist())
