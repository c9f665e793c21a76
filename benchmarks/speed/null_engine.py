"""An engine that does next to nothing, to see what everything else of a synthesis costs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Self

from sar_eval.types import Draw, DrawProtocol, Generation

TOKENS = tuple(range(64))
SIDE = 4  # pixels


class NullEngine:
    """Gives each draw a picture of 4 x 4 pixels that its seed decides, and always the same tokens."""

    version = "1"

    def __init__(
        self, checkpoint: str, protocol: DrawProtocol, *, device: str, dtype: str, batch_size: int
    ) -> None:
        del checkpoint, protocol, device, dtype, batch_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to free."""

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """One generation for each draw, in order."""
        for draw in draws:
            yield Generation(draw.key, draw.seed, TOKENS, png(draw.seed), 0.0)


def png(seed: int) -> bytes:
    """A PNG of noise, stored without compression."""
    noise = seed.to_bytes(8, "big") * (SIDE * SIDE * 3 // 8)
    lines = b"".join(b"\0" + noise[i : i + 3 * SIDE] for i in range(0, len(noise), 3 * SIDE))
    return _head() + _chunk(b"IDAT", zlib.compress(lines, 0)) + _chunk(b"IEND", b"")


@lru_cache
def _head() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ENGINE = NullEngine
