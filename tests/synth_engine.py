"""An engine for tests of synthesis: tiny pictures, and prompts at which it misbehaves."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from sar_eval.types import Draw, DrawProtocol, Generation

TOKENS = tuple(range(16))
POISON, FAULTY, ABSENT, TWICE, STRANGE = (
    "poison",
    "faulty",
    "absent",
    "twice",
    "strange",
)  # words of a prompt


class SynthEngine:
    """Draws at a given pace; at some words it kills its process, raises, or gives an error.

    Args:
        pace_ms: milliseconds of a draw.
        log: a file to which each draw's key is appended; "" for none.
    """

    version = "1"
    speed_options = ("pace_ms", "log")

    def __init__(
        self,
        checkpoint: str,
        protocol: DrawProtocol,
        *,
        device: str,
        dtype: str,
        batch_size: int,
        pace_ms: int = 0,
        log: str = "",
    ) -> None:
        del checkpoint, protocol, device, dtype, batch_size
        self.pace_ms, self.log = pace_ms, log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to free."""

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """One generation for each draw, in order."""
        for draw in draws:
            time.sleep(self.pace_ms / 1e3)
            yield self._draw(draw)
            if TWICE in draw.prompt.text:
                yield self._draw(draw)

    def _draw(self, draw: Draw) -> Generation:
        text = draw.prompt.text
        if POISON in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if FAULTY in text:
            raise ValueError("the engine cannot draw this")
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{draw.key}\n")
        if ABSENT in text:
            return Generation(draw.key, draw.seed, error="nothing was drawn")
        tokens = (*TOKENS, -1) if STRANGE in text else TOKENS
        return Generation(draw.key, draw.seed, tokens, png(draw.seed))


def png(seed: int) -> bytes:
    """A picture of 4 x 4 pixels of noise."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (4, 4), seed.to_bytes(8, "big") * 6).save(buffer, "PNG")
    return buffer.getvalue()


ENGINE = SynthEngine
