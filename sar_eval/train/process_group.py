"""The process group of a training: made for it, and taken down when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

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
)
LATE = "timed out"
# While one process writes a state, or loads a judge, all others wait for it: NCCL's 10 minutes are too few.
WAIT = timedelta(hours=2)


@contextmanager
def process_group() -> Iterator[None]:
    """Within, ranks that a launcher started reach each other; without a launcher nothing is made.

    Raises:
        Incomplete: another rank is gone.
    """
    had_one = dist.is_initialized()
    PartialState(cpu=not torch.cuda.is_available(), timeout=WAIT)
    try:
        yield
        if dist.is_initialized() and not had_one:
            dist.destroy_process_group()  # its threads may abort a process that ends with them
    except RuntimeError as error:
        if isinstance(error, SarEvalError) or not (why := _of_other_ranks(error)):
            raise
        raise Incomplete(f"{why}: run the same command again to go on from the last state") from error
    finally:
        if not had_one:
            PartialState._reset_state()


def _of_other_ranks(error: RuntimeError) -> str:
    """What an error of a collective says of other ranks; "" for any other error."""
    text = str(error).lower()
    if not dist.is_initialized():
        return ""
    if any(words in text for words in LOST):
        return "another process of this training is gone, killed perhaps for its memory"
    if LATE in text:
        return "another process of this training did not answer in time: it hangs, or cannot be reached"
    return ""


def rank() -> int:
    """Of this process, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1
