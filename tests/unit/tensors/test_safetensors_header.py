"""Headers of safetensors files are read bounded and held against the file."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sar_eval.errors import BadInput
from sar_eval.tensors.safetensors_header import read_header


def _file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def _entry(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn]
)
def test_names_types_and_shapes_are_those_of_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "a": torch.ones(3, 4).to(dtype),
        "b.c": torch.ones(2, 1, 5).to(dtype),
        "d": torch.ones(()).to(dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert {name: entry.shape for name, entry in header.items()} == {
        n: tuple(t.shape) for n, t in tensors.items()
    }
    assert max(entry.end for entry in header.values()) == (tmp_path / "x.safetensors").stat().st_size


@pytest.mark.parametrize(
    "header",
    [
        1,
        "x",
        None,
        [],
        {"a": []},
        {"a": 1},
        {"a": {"shape": None}},
        {"a": {}},
        {"a": _entry(dtype="F33")},
        {"a": _entry(dtype=["F32"])},
        {"a": _entry(shape=3)},
        {"a": _entry(shape=[-2])},
        {"a": _entry(shape=[2.0])},
        {"a": _entry(shape=[True, 2])},
        {"a": _entry(shape=[10**18, 10**18])},
        {"a": _entry(offsets=[0])},
        {"a": _entry(offsets=[0, 8, 9])},
        {"a": _entry(offsets=[8, 0])},
        {"a": _entry(offsets=[0, 4])},
        {"a": _entry(offsets=[8, 16])},
        {"a": _entry(), "b": _entry()},
        {"a": _entry(), "b": _entry(offsets=[4, 12])},
        b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"\xff\xfe",
        b"",
    ],
    ids=str,
)
def test_headers_that_are_no_table_of_tensors_are_refused(tmp_path: Path, header: object) -> None:
    path = _file(tmp_path / "x.safetensors", header, b"\0" * 8)
    with pytest.raises(BadInput, match=r"x\.safetensors is no readable safetensors file"):
        read_header(path)


@pytest.mark.parametrize("length", [0, 7, 10**6, 10**9, 2**63, 2**64 - 1])
def test_the_length_of_the_header_is_bounded(tmp_path: Path, length: int) -> None:
    path = _file(tmp_path / "x.safetensors", {"a": _entry()}, b"\0" * 8, length)
    with pytest.raises(BadInput, match=r"x\.safetensors is no readable safetensors file"):
        read_header(path)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_is_cut_off_or_longer_is_told(tmp_path: Path, change: int) -> None:
    path = _file(tmp_path / "x.safetensors", {"a": _entry()}, b"\0" * (8 + change))
    with pytest.raises(BadInput, match=r"its tensors need \d+ bytes, and the file has \d+"):
        read_header(path)
