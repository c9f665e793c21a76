"""What the parity tests of the scorers on CLIP read of their module's `data`, a `ClipData`."""

import pytest
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def expected(data):
    """The official tensors."""
    return load_file(data.folder / "expected.safetensors")


@pytest.fixture(scope="module")
def pictures(data):
    """By name, in the rows' order, and the numbers of these rows."""
    found = data.pictures()
    rows = [(n, name) for n, name in enumerate(data.cases["order"]["images"]) if name in found]
    return {name: found[name] for _, name in rows}, [n for n, _ in rows]


@pytest.fixture(scope="module")
def texts(data):
    """In the columns' order."""
    return [data.texts[name] for name in data.cases["order"]["texts"]]
