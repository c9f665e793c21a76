"""The engine on a real vLLM (`make vllm-tests` has the environment); no GPU is needed."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before torch is loaded: threads that wait for each other make such small networks slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without vLLM they are skipped, and say so."""
    if find_spec("vllm") is not None:
        return
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed here: make vllm-tests"))


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the engine has it, but for a test that wants vLLM's core in a process of its own."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
