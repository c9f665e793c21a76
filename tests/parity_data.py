"""Reference data with the official code's outputs: the full folder, or the committed part of it."""

import gzip
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "golden" / "data"
FULL = Path(os.environ.get("SAR_EVAL_PARITY", ROOT.parent / "shared" / "parity"))


def unpacked(out: Path) -> Path:
    """Copy the committed part to `out` and unpack its files, so that it has the full folder's names."""
    shutil.copytree(DATA, out, dirs_exist_ok=True)
    for path in list(out.rglob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    return out


def needs(path: Path) -> Path:
    """Skip the test if `path` is not in the committed part; in the full folder it must exist."""
    if not path.exists() and not FULL.is_dir():
        pytest.skip(f"{path.name} is only in the full reference data: set SAR_EVAL_PARITY to its folder")
    return path
