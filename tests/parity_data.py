"""Where tests find what the official code answers: the full folder, or the part of it that is committed."""

import gzip
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "golden" / "data"
FULL = Path(os.environ.get("SAR_EVAL_PARITY", ROOT.parent / "shared" / "parity"))


def unpacked(out: Path) -> Path:
    """Copy the committed part to `out`, under the full folder's names: some files are packed only here."""
    shutil.copytree(DATA, out, dirs_exist_ok=True)
    for path in list(out.rglob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    return out


def needs(path: Path) -> Path:
    """Skip where `path` was left out of the committed part; in the full folder it has to be."""
    if not path.exists() and not FULL.is_dir():
        pytest.skip(f"{path.name} is only in the full reference data: set SAR_EVAL_PARITY to its folder")
    return path
