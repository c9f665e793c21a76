"""How many draws fit in a device's memory at once, computed from the decoder's configuration."""

from __future__ import annotations

import os

import torch

from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.machine import free_memory
from sar_eval.protocols import WORKERS_PER_DEVICE

MEMORY_UTILIZATION = 0.85  # of the free memory; the rest allows for fragmentation in the allocator
TYPICAL_PROMPT_TOKENS = 128  # length of a prompt, where no prompt is known yet


def kv_bytes(config: DecoderConfig, itemsize: int) -> int:
    """Bytes of keys and values of one token in one row."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize


def draw_bytes(config: DecoderConfig, itemsize: int, branches: int, length: int, vocab_size: int) -> int:
    """Bytes of one draw while it is decoded.

    Args:
        config: of the decoder.
        itemsize: bytes of one value in the weights' dtype.
        branches: K, sequences of one draw: 2 with guidance, else 1.
        length: tokens of prompt and image.
        vocab_size: number of tokens sampled from.
    """
    cache = branches * length * kv_bytes(config, itemsize)
    # Logits of every branch, and about six float32 or int32 copies while scores and noise are computed.
    return cache + vocab_size * (branches * itemsize + 6 * 4)


def free_bytes(device: str) -> int:
    """This worker's share of the device's free memory; on the CPU, of what system and cgroup leave."""
    workers = int(os.environ.get(WORKERS_PER_DEVICE, "1"))
    return _free_bytes(device) // max(1, workers)


def _free_bytes(device: str) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device != "cpu" else free_memory()


def max_draws(free: int, per_draw: int) -> int:
    """How many draws of `per_draw` bytes fit in `free` bytes, at least 1."""
    return max(1, int(free * MEMORY_UTILIZATION) // per_draw)
