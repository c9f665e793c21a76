"""One copy in memory of a network that several scorers and judges of a process use."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, TypeVar

Network = TypeVar("Network")
_held: dict[Hashable, tuple[Any, int]] = {}  # the network and how many hold it
_lock = RLock()


def acquire(key: Hashable, load: Callable[[], Network]) -> Network:
    """The network of this key, loaded if nobody holds it; `release` gives it back.

    Args:
        key: everything that decides what it computes, and where: architecture, path and digest of the
            weights, device, dtype.
        load: makes it.
    """
    with _lock:
        network, holders = _held[key] if key in _held else (load(), 0)
        _held[key] = (network, holders + 1)
        return network


def release(key: Hashable) -> None:
    """Give a network back; the last one frees its memory."""
    with _lock:
        network, holders = _held.pop(key)
        if holders > 1:
            _held[key] = (network, holders - 1)
