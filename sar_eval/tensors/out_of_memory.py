"""Telling an exhausted memory from other faults."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was not enough, on a GPU or on the CPU."""
    told = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in told or "out of memory" in told)
    )
