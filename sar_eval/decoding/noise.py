"""Sampling noise that is a pure function of (seed, position, token id).

The tokens of a draw then depend on its own logits alone: not on its batch, its worker, the order of draws
or a resume; two engines with the same logits sample the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LOW32 = 0xFFFFFFFF


def _mix64(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al., "Fast Splittable Pseudorandom Number Generators")."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def noise_keys(seeds: Sequence[int], positions: int, device: torch.device) -> Tensor:
    """Keys of every position, int32 `[positions, len(seeds), 2]`, computed once for a batch of draws."""
    return torch.from_numpy(_keys(seeds, np.arange(positions, dtype=np.uint64)[:, None])).to(device)


def noise_keys_at(seeds: Sequence[int], positions: Sequence[int]) -> Tensor:
    """Keys of each draw at a position of its own, int32 `[len(seeds), 2]`, on the CPU."""
    return torch.from_numpy(_keys(seeds, np.array(positions, dtype=np.uint64)))


def _keys(seeds: Sequence[int], positions: NDArray[np.uint64]) -> NDArray[np.int32]:
    """The two 32-bit halves of a 64-bit hash of (seed, position)."""
    increments = positions * np.uint64(0x9E3779B97F4A7C15)
    mixed = _mix64(_mix64(np.array(seeds, dtype=np.uint64)) + increments)
    halves = np.stack([mixed & np.uint64(_LOW32), mixed >> np.uint64(32)], -1)
    return halves.astype(np.uint32).view(np.int32)


def _as_int32(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _mix32(x: Tensor) -> Tensor:
    """A 32-bit integer hash with low bias (multipliers: Wellons' hash prospector, `lowbias32`)."""
    x = (x ^ (x >> 16 & 0xFFFF)) * 0x7FEB352D
    x = (x ^ (x >> 15 & 0x1FFFF)) * _as_int32(0x846CA68B)
    return x ^ (x >> 16 & 0xFFFF)


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise float32 `[B, V]` for keys int32 `[B, 2]` and token ids int32 `[V]`."""
    hashed = _mix32(_mix32(tokens[None, :] ^ keys[:, :1]) + keys[:, 1:])
    return gumbel_from_bits(hashed)


def gumbel_from_bits(hashed: Tensor) -> Tensor:
    """Gumbel noise from int32 hashes: 23 bits plus one half, which float32 represents below 1."""
    uniform = ((hashed >> 9 & 0x7FFFFF).float() + 0.5) * 2**-23
    return -torch.log(-torch.log(uniform))
