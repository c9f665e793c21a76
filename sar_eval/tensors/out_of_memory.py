"""Recognise out-of-memory errors."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a GPU or the CPU is out of memory."""
    message = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in message or "out of memory" in message)
    )
