"""The engine on a real vLLM (`make vllm-tests` has the environment); no GPU is needed."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before torch is loaded: synchronising threads makes such small networks slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests where vLLM is not installed."""
    if find_spec("vllm") is not None:
        return
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed here: make vllm-tests"))


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's default; some tests run vLLM's core in a process of its own instead."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
