"""How many draws fit in a device's memory at once: planned from the shape, not guessed."""

from __future__ import annotations

import os

import torch

from sar_eval.families.shape import Shape
from sar_eval.protocols import WORKERS_PER_DEVICE

SHARE = 0.85  # of the free memory; the rest is for what the allocator loses between its blocks
ROOM = 128  # tokens of a prompt, where no prompt is known yet


def kv_bytes(shape: Shape, itemsize: int) -> int:
    """Bytes of keys and values of one token in one row."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * itemsize


def draw_bytes(shape: Shape, itemsize: int, branches: int, slots: int, vocabulary: int) -> int:
    """Bytes of one draw in flight.

    Args:
        shape: of the decoder.
        itemsize: bytes of a number of the weights' dtype.
        branches: 2 with guidance, else 1.
        slots: tokens of prompt and image.
        vocabulary: tokens sampled from.
    """
    cache = branches * slots * kv_bytes(shape, itemsize)
    # Logits of every branch, and about six float32 or int32 copies while scores and noise are made.
    return cache + vocabulary * (branches * itemsize + 6 * 4)


def free_bytes(device: str) -> int:
    """This worker's part of the device's free memory; on the CPU of what the system says is available."""
    workers = int(os.environ.get(WORKERS_PER_DEVICE, "1"))
    return _free_bytes(device) // max(1, workers)


def _free_bytes(device: str) -> int:
    if device != "cpu":
        return int(torch.cuda.mem_get_info()[0])
    with open("/proc/meminfo") if os.path.exists("/proc/meminfo") else open(os.devnull) as lines:  # noqa: PTH110, PTH123
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fitting(free: int, one: int) -> int:
    """How many draws of `one` bytes fit in `free` bytes, at least 1."""
    return max(1, int(free * SHARE) // one)
