"""The `Accelerator` of a training run, whatever this process has trained before."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState


def new_accelerator(precision: str, *, cpu: bool) -> Accelerator:
    """An `Accelerator` with its own precision and device.

    accelerate keeps one state a process and refuses another precision or device later on, so that two
    trainings of one process, a float32 after a bfloat16 one, would depend on their order. The process
    group, if there is one, stays.

    Args:
        precision: "bf16" or "no", as `Accelerator(mixed_precision=...)` takes it.
        cpu: train on the CPU even if there is a GPU.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # as transformers' Trainer does it
    GradientState._reset_state()
    return Accelerator(mixed_precision=precision, cpu=cpu)
