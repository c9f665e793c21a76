"""Headers of torch files, against what torch loads of the same files."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sar_eval.errors import BadInput
from sar_eval.tensors.torch_header import read_torch_header
from sar_eval.tensors.weight_files import WRAPPERS, read_torch_file

WITHOUT_STORAGE = (torch.float8_e4m3fn, torch.uint16)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, *WITHOUT_STORAGE)
WITH_ATTRIBUTE = torch.zeros(3)
WITH_ATTRIBUTE.scale = 2.0  # type: ignore[attr-defined]
TENSORS = {
    **{f"t.{n}": torch.zeros(2, n + 1, dtype=dtype) for n, dtype in enumerate(FLOATS)},
    "number": torch.tensor(3),
    "flag": torch.tensor([True]),
    "parameter": torch.nn.Parameter(torch.zeros(4, 1)),
    "attribute": WITH_ATTRIBUTE,
    "complex": torch.zeros(2, dtype=torch.complex64),
    "empty": torch.zeros(0, 5),
    "part of another": torch.arange(12.0).view(3, 4)[:, 1:3],
}


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("wrapper", ["", "model", "module"])
def test_it_says_what_torch_loads(tmp_path: Path, wrapper: str, is_archive: bool) -> None:
    path = tmp_path / "x.pt"
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": np.float64(0.1)}]}
    extra = {"optimizer": optimizer, "args": argparse.Namespace(lr=1), "steps": 3, "ema": {}}
    extra |= {
        "milestones": collections.Counter([3]),
        "dtype": torch.bfloat16,
        "size": torch.zeros(2).size(),
    }
    extra |= {"device": torch.device("cpu"), "seen": {1, 2}}
    # torch itself does not load a type that has no storage of its own from a file that is no archive.
    tensors = {n: t for n, t in TENSORS.items() if is_archive or t.dtype not in WITHOUT_STORAGE}
    content = {wrapper: tensors, **extra} if wrapper else tensors
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    loaded = read_torch_file(path, WRAPPERS)
    header = read_torch_header(path)
    assert {n: (f"torch.{t.dtype}", t.shape) for n, t in header.items()} == {
        n: (str(t.dtype), tuple(t.shape)) for n, t in loaded.items()
    }
    assert header["t.3"].dtype == "bfloat16"
    assert header.keys() == tensors.keys()


def test_a_module_s_own_table_is_read(tmp_path: Path) -> None:
    """Such a table is an ordered dictionary with an attribute of torch's."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(network.state_dict(), tmp_path / "x.pt")
    found = read_torch_header(tmp_path / "x.pt")
    assert {name: t.shape for name, t in found.items()} == {
        name: tuple(t.shape) for name, t in network.state_dict().items()
    }


def test_nothing_is_run_and_torch_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(2)}, path)
    code = (
        "import sys, pathlib; from sar_eval.tensors.torch_header import read_torch_header as r\n"
        f"assert r(pathlib.Path({str(path)!r}))['a'].shape == (2,)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(2), "b": _Evil()}, r"also holds an object of posix.mkdir"),
        ({"a": torch.zeros(2), "b": 3}, "something else than tensors by name"),
        ({3: torch.zeros(2)}, "something else than tensors by name"),
        (torch.zeros(2), "something else than tensors by name"),
        ({"a": collections.deque()}, r"an object of collections\.deque"),
    ],
)
def test_other_contents_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(BadInput, match=message):
        read_torch_header(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def _zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(2)}, path)
    whole = path.read_bytes()
    for data in (b"", whole[:40], whole[:-40], b"not a zip" * 9):
        path.write_bytes(data)
        with pytest.raises(
            BadInput, match="neither an archive nor begins as torch's files do: is it cut off"
        ):
            read_torch_header(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BadInput, match=r"x\.pt is no torch file .*begins as another pickle"):
        read_torch_header(path)
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(BadInput, match=r"x\.pt is no torch file"):
        read_torch_header(path)
    for data in (b"", b"\x80\x04", b"garbage", pickle.dumps([1]), pickle.dumps({"a": "x"})):
        _zip(path, data)
        with pytest.raises(BadInput, match=r"x\.pt"):
            read_torch_header(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(BadInput, match="it has no table of tensors"):
        read_torch_header(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(BadInput, match="git-lfs pointer"):
        read_torch_header(path)
    with pytest.raises(BadInput, match=r"none\.pt"):
        read_torch_header(tmp_path / "none.pt")


def test_any_change_of_a_byte_is_read_or_refused(tmp_path: Path) -> None:
    path, source = tmp_path / "x.pt", tmp_path / "y.pt"
    torch.save({"model": {"a": torch.zeros(2, 3), "b": torch.zeros(4)}, "steps": 3}, source)
    with zipfile.ZipFile(source) as archive:
        data = archive.read("y/data.pkl")
    generator, refused = np.random.default_rng(3), 0
    for _ in range(400):
        changed = bytearray(data)
        changed[generator.integers(len(data))] = generator.integers(256)
        _zip(path, bytes(changed))
        try:
            read_torch_header(path)
        except BadInput:
            refused += 1
    assert refused > 100
