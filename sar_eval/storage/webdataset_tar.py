"""Data objects as tar files of the WebDataset layout: a few files of one stem for each picture.

`000000000012-0003.png` (or `.webp`), `.txt` (the caption), `.tokens.npy` (codes) and `.json` (the rest).
The bytes depend on the rows alone: names ascend, all times and owners are 0, and the format is POSIX
ustar, which has no room for anything else. Python's `tarfile` and webdataset's own writer put in the time
of writing, by which no tar could ever be made twice.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.lib import format as npy

from sar_eval.documents import convert, parse_json
from sar_eval.errors import BadInput
from sar_eval.storage.schemas import image_suffix
from sar_eval.storage.set_rows import DataRow

IMAGES = ("png", "webp", "jpg")
LARGEST = 1 << 30  # bytes of one member that are read
_NAME = re.compile(r"([0-9]{12,19}-[0-9]{4,10})\.(.+)")


class Facts(msgspec.Struct, frozen=True):
    """The `.json` of a picture."""

    row: int
    index: int
    id: str
    seed: int
    text: str = ""
    scores: dict[str, float | None] = {}
    made_with: dict[str, str] = {}


def write_tar(rows: Sequence[DataRow], metadata: Mapping[str, str], measures: Sequence[str]) -> bytes:
    """The tar of some rows.

    Args:
        rows: in ascending order of row and index.
        metadata: repeated in the `.json` of each picture: a tar has no place of its own for it.
        measures: whose scores the `.json` has; null without a value.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            for suffix, data in sorted(_members(row, metadata, measures).items()):
                member = tarfile.TarInfo(f"{row.row:012d}-{row.index:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _members(row: DataRow, metadata: Mapping[str, str], measures: Sequence[str]) -> dict[str, bytes]:
    scores = {name: row.scores.get(name) for name in measures}
    facts = Facts(row.row, row.index, row.id, row.seed, row.text, scores, dict(metadata))
    found = {"json": msgspec.json.encode(facts), "txt": row.caption.encode()}
    if row.image is not None:
        found[image_suffix(row.image)] = row.image
    if row.tokens is not None:
        found["tokens.npy"] = _npy(row.tokens, metadata)
    return found


def _npy(tokens: Sequence[int], metadata: Mapping[str, str]) -> bytes:
    codes = np.array(tokens, np.int64)
    buffer = io.BytesIO()
    narrow = np.dtype(token_type(metadata, int(codes.max(initial=0)))).newbyteorder("<")
    npy.write_array(buffer, codes.astype(narrow), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def token_type(metadata: Mapping[str, str], highest: int = 0) -> str:
    """`uint16`, or `uint32` where the codebook (or without its size, the highest code) needs that."""
    size = metadata.get("codebook_size", "")
    codes = int(size) if size.isdecimal() and len(size) < 12 else 0
    return "uint16" if max(codes, highest + 1) <= 1 << 16 else "uint32"


def read_tar(file: BinaryIO, where: str) -> Iterator[DataRow]:
    """Rows of a tar, one after the other.

    Raises:
        BadInput: it is damaged, or not one of ours.
    """
    for _, row in read_tar_with_facts(file, where):
        yield row


def read_tar_with_facts(file: BinaryIO, where: str) -> Iterator[tuple[Facts, DataRow]]:
    """What the `.json` of each picture says, and its row.

    Raises:
        BadInput: see `read_tar`.
    """
    for stem, members in groupby(_files(file, where), key=lambda member: member[0]):
        files = {suffix: data for _, suffix, data in members}
        yield _row(files, f"{where}, {stem}")


def _files(file: BinaryIO, where: str) -> Iterator[tuple[str, str, bytes]]:
    """(stem, suffix, bytes) of the members."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                match = _NAME.fullmatch(member.name)
                if match is None or not member.isreg() or member.size > LARGEST:
                    raise BadInput(f"{where}: {member.name[:80]!r} is no file of a set")
                data = tar.extractfile(member)
                content = data.read() if data else b""
                if len(content) != member.size:
                    raise BadInput(f"{where} is cut off within {member.name}")
                yield match[1], match[2], content
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise BadInput(f"{where} cannot be read as a tar: {error}") from error


def _row(files: Mapping[str, bytes], where: str) -> tuple[Facts, DataRow]:
    if "json" not in files or "txt" not in files:
        raise BadInput(f"{where} has no {'.txt' if 'json' in files else '.json'}")
    facts = convert(parse_json(files["json"], f"{where}.json"), Facts, f"{where}.json")
    tokens = _tokens(files["tokens.npy"], where) if "tokens.npy" in files else None
    image = next((files[suffix] for suffix in IMAGES if suffix in files), None)
    scores = {name: score for name, score in facts.scores.items() if score is not None}
    try:
        caption = files["txt"].decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}.txt is no UTF-8: {error}") from error
    row = DataRow(facts.row, facts.index, facts.id, caption, facts.seed, facts.text, image, tokens, scores)
    return facts, row


def _tokens(data: bytes, where: str) -> tuple[int, ...]:
    try:
        codes: Any = npy.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
        raise BadInput(f"{where}.tokens.npy cannot be read: {error}") from error
    if codes.ndim != 1 or codes.dtype.kind != "u":
        raise BadInput(f"{where}.tokens.npy is no row of codes, but {codes.dtype} {codes.shape}")
    return tuple(codes.tolist())
