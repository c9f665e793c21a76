"""Which errors say that memory ran out."""

import pytest

from sar_eval.tensors.out_of_memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_memory_errors_are_distinguished_from_others(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
