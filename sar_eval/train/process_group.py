"""The process group of a training: made for it, and taken down when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import PartialState

from sar_eval.errors import Incomplete, SarEvalError

# What gloo and NCCL say on a rank whose peer is gone.
LOST = (
    "connection closed by peer",
    "connection reset",
    "broken pipe",
    "remote process exited",
    "timed out",
)


@contextmanager
def process_group() -> Iterator[None]:
    """Within, ranks that a launcher started reach each other; without a launcher nothing is made.

    Raises:
        Incomplete: another rank is gone.
    """
    had_one = dist.is_initialized()
    PartialState(cpu=not torch.cuda.is_available())
    try:
        yield
        if dist.is_initialized() and not had_one:
            dist.destroy_process_group()  # its threads may abort a process that ends with them
    except RuntimeError as error:
        if isinstance(error, SarEvalError) or not _is_of_a_lost_rank(error):
            raise
        raise Incomplete(
            "another process of this training is gone, killed perhaps for its memory: run the same command "
            "again to go on from the last state"
        ) from error
    finally:
        if not had_one:
            PartialState._reset_state()


def _is_of_a_lost_rank(error: RuntimeError) -> bool:
    text = str(error).lower()
    return dist.is_initialized() and any(words in text for words in LOST)


def rank() -> int:
    """Of this process, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1
