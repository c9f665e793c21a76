"""Whatever bytes a file or a server brings: they are read, or refused in one message, and quickly.

1,000 cases in all. SAR_EVAL_FUZZ_CASES=100000 tries so many, others at each start.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from loaders import LOADERS, Loader
from mutations import mutated

from sar_eval.errors import SarEvalError

ASKED = int(os.environ.get("SAR_EVAL_FUZZ_CASES", "0"))
CASES = -(-(ASKED or 1000) // len(LOADERS))  # of each loader
LIMIT_S = 5.0  # of one case, on a busy machine


def write(folder: Path, loader: Loader) -> bytes:
    """Write the loader's good files; the one that is mutated is returned."""
    files = loader.files()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files[loader.name]


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
def test_the_good_file_is_read(loader: Loader, tmp_path: Path) -> None:
    write(tmp_path, loader)
    loader.load(tmp_path)


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
def test_any_bytes_are_read_or_refused(loader: Loader, tmp_path: Path) -> None:
    good = write(tmp_path, loader)

    @settings(
        max_examples=CASES,
        derandomize=not ASKED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if ASKED else [])],
    )
    @given(mutated(good, loader.shape))
    def check(data: bytes) -> None:
        (tmp_path / loader.name).write_bytes(data)
        began = time.monotonic()
        with suppress(SarEvalError):
            loader.load(tmp_path)
        assert time.monotonic() - began < LIMIT_S

    check()
