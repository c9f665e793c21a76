"""The header of a safetensors file, read without torch and held against the file.

A file is eight bytes with the header's length, the header (JSON: name to dtype, shape, and where its bytes
begin and end), and the bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.documents import parse_json, shorten
from sar_eval.errors import BadInput
from sar_eval.tensors.git_lfs import refuse_pointer

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_BITS = {
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E5M2FNUZ F8_E4M3FNUZ F8_E8M0",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "I64 U64 F64 C64",
    6: "F6_E2M3 F6_E3M2",
    4: "F4",
}
BITS = {dtype: bits for bits, dtypes in _BITS.items() for dtype in dtypes.split()}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor in a safetensors file.

    Attributes:
        dtype: as the format calls it, `F32` or `BF16`.
        shape: its sizes; a size of 0 makes it empty.
        begin, end: where its bytes are in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Names, types, shapes and places of a file's tensors.

    Raises:
        BadInput: the file is a git-lfs pointer, is unreadable, cut off, or its header is no table of
            tensors whose bytes fill the file without gaps.
    """
    refuse_pointer(path)
    try:
        with path.open("rb") as file:
            prefix, size = file.read(8), path.stat().st_size
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise BadInput(
                    f"{path} is no readable safetensors file: its header would be {length} bytes long, and "
                    f"the file has {size}: get the file again"
                )
            text = file.read(length)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    return _entries(parse_json(text, f"{path} is no readable safetensors file"), path, 8 + length, size)


def _entries(header: Any, path: Path, start: int, size: int) -> dict[str, TensorEntry]:
    if not isinstance(header, dict):
        raise BadInput(_unreadable(path, f"its header is {shorten(header)}, no table of tensors"))
    fields = {name: value for name, value in header.items() if name != "__metadata__"}
    entries = {name: _entry(name, value, path, start) for name, value in fields.items()}
    end = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise BadInput(
                f"{path} is no readable safetensors file: tensor {name!r} begins at the wrong place"
            )
        end = entry.end
    if end != size:
        why = f"its tensors need {end} bytes, and the file has {size}: it is cut off; get the file again"
        raise BadInput(_unreadable(path, why))
    return entries


def _entry(name: str, value: Any, path: Path, start: int) -> TensorEntry:
    """One tensor of the header, checked by itself."""
    table: dict[str, Any] = value if isinstance(value, dict) else {}
    dtype, shape, offsets = (table.get(key, ()) for key in ("dtype", "shape", "data_offsets"))
    whole = _are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2
    if not isinstance(dtype, str) or dtype not in BITS or not whole:
        raise BadInput(_unreadable(path, f"tensor {shorten(name)} is described as {shorten(value)}"))
    entry = TensorEntry(dtype, tuple(shape), start + offsets[0], start + offsets[1])
    if (length := entry.end - entry.begin) * 8 != entry.size * BITS[dtype]:
        what = f"tensor {shorten(name)} is {list(shape)} of {dtype} and has {length} bytes"
        raise BadInput(_unreadable(path, what))
    return entry


def _unreadable(path: Path, why: str) -> str:
    return f"{path} is no readable safetensors file: {why}"


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 62 for size in value)
