"""The committed part of the reference data: its size, and that it equals the full folder."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import golden_rewards
from tests.mplug_recipe import digest, make_state, read_weights
from tests.parity_data import DATA, FULL, ROOT

BY_HAND = {Path(name) for name in ("README.md", "geneval/LICENSE", *golden_rewards.BY_HAND)}


@pytest.fixture(scope="module")
def full() -> Path:
    if not FULL.is_dir():
        pytest.skip("compares with the full reference data: set SAR_EVAL_PARITY to its folder")
    return FULL


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file, unpacked: compressed bytes depend on the version of zlib."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: gzip.decompress(b) if path.suffix == ".gz" else b for path, b in files.items()}


def test_the_committed_part_is_under_13_mb() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 13_000_000


@pytest.mark.slow
def test_the_script_reproduces_the_committed_part(full: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.make_golden_data", full, tmp_path]
    subprocess.run(
        command, check=True, cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    written, committed = contents(tmp_path), contents(DATA)
    assert written.keys() == committed.keys() - BY_HAND
    for path, content in written.items():
        assert committed[path] == content, path


@pytest.mark.parametrize("variant", ["stride6_distill", "stride3_plain"])
def test_the_generated_weights_are_the_originals(full: Path, variant: str) -> None:
    folder = full / "mplug" / variant
    generated, original = make_state(folder), read_weights(folder / "pytorch_model.bin")
    assert list(generated) == list(original)
    assert digest(generated) == digest(original)
