"""Sampling noise that is a pure function of (seed, position, token id).

A draw's tokens then depend on nothing but its own logits: not on its batch, its worker, the order
or a resume; two engines with the same logits sample the same tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LOW32 = 0xFFFFFFFF


def _mix64(value: int) -> int:
    """SplitMix64's finaliser (Steele et al., "Fast Splittable Pseudorandom Number Generators")."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def noise_keys(seeds: list[int], positions: int, device: torch.device) -> Tensor:
    """Keys of every step, int32 `[positions, len(seeds), 2]`, made once for a batch of draws."""
    rows = []
    for position in range(positions):
        mixed = [_mix64(_mix64(seed) + position * 0x9E3779B97F4A7C15) for seed in seeds]
        rows.append([(_signed(m & _LOW32), _signed(m >> 32 & _LOW32)) for m in mixed])
    return torch.tensor(rows, dtype=torch.int32, device=device).view(positions, len(seeds), 2)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def _mix32(x: Tensor) -> Tensor:
    """A 32-bit integer hash with low bias (multipliers: Wellons' hash prospector, `lowbias32`)."""
    x = (x ^ (x >> 16 & 0xFFFF)) * 0x7FEB352D
    x = (x ^ (x >> 15 & 0x1FFFF)) * _signed(0x846CA68B)
    return x ^ (x >> 16 & 0xFFFF)


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise float32 `[B, V]` for keys int32 `[B, 2]` and token ids int32 `[V]`."""
    hashed = _mix32(_mix32(tokens[None, :] ^ keys[:, :1]) + keys[:, 1:])
    return from_bits(hashed)


def from_bits(hashed: Tensor) -> Tensor:
    """Gumbel noise from hashes int32: 23 bits and a half, which float32 holds without rounding to 1."""
    uniform = ((hashed >> 9 & 0x7FFFFF).float() + 0.5) * 2**-23
    return -torch.log(-torch.log(uniform))
