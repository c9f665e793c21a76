"""What is worth saying before a training begins, and what to change where its memory was too small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sar_eval.errors import Incomplete, SarEvalError
from sar_eval.tensors.out_of_memory import is_out_of_memory
from sar_eval.train.process_group import ranks
from sar_eval.train.training_options import TrainingOptions

# What torch's loader says of a worker that the system ended, nearly always for want of memory.
LOST_WORKER = "DataLoader worker"


def advice(options: TrainingOptions) -> list[str]:
    """Sentences on what was perhaps not meant."""
    found = []
    if ranks() == 1 and (devices := torch.cuda.device_count()) > 1:
        found.append(
            f"1 of {devices} GPUs is used: for all, start it as `torchrun --nproc_per_node={devices} -m "
            "sar_eval train ...`"
        )
    if options.warmup >= options.last_step:
        reached = (options.last_step - 1) / options.warmup
        found.append(
            f"the warm-up of {options.warmup:,} steps is longer than the training: its last step has "
            f"{reached:.0%} of the rate (see --warmup)"
        )
    return found


@contextmanager
def enough_memory(options: TrainingOptions) -> Iterator[None]:
    """Say what to change where there is too little.

    Raises:
        Incomplete: there is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, SarEvalError):
            raise
        if is_out_of_memory(error):
            raise Incomplete(_too_little(options)) from error
        if LOST_WORKER in str(error):
            raise Incomplete(
                "a process that reads data was ended by the system, for want of memory most likely: lower "
                "--workers or --window, and run the same command again to go on from the last state"
            ) from error
        raise


def _too_little(options: TrainingOptions) -> str:
    micro = options.micro_batch(ranks())
    save = [f"lower --micro (now {micro})"] if micro > 1 else []
    save += [] if options.gradient_checkpointing else ["add --gradient-checkpointing"]
    save += ["share weights and optimiser among cards (benchmarks/train/accelerate-fsdp2.yaml)"]
    return (
        f"out of memory: {', '.join(save)}, or, in an evaluation, --set evaluation.batch_size=8; then run "
        "the command again to go on from the last state"
    )
