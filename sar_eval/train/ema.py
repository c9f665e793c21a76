"""Averaged weights: an exponential moving average of the trained ones, which draws better than the last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import broadcast
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback

from sar_eval.errors import BadInput
from sar_eval.train.launcher import is_first
from sar_eval.train.live_weights import bare_name, own_part, whole
from sar_eval.train.ranks import on_every_rank


def decay_at(step: int, decay: float) -> float:
    """The decay at an optimiser step, from 1 on: at first small, or the random start would stay for long.

    `min(decay, (1 + t) / (10 + t))`, as TensorFlow's ExponentialMovingAverage and timm have it.
    """
    return min(decay, (1 + step) / (10 + step))


class AveragedWeights(TrainerCallback):
    """Float32 averages of every trained parameter, sharded as the model is, updated once a step.

    They are evaluated, and written as the checkpoint, in place of the last weights.
    """

    state_name: ClassVar[str] = "averages"

    def __init__(self, decay: float) -> None:
        """Nothing is copied until the training begins.

        Args:
            decay: of the average, from 0 to 1; 0.999 averages over about a thousand steps.
        """
        self.decay = decay
        self.tensors: dict[str, Tensor] = {}  # by the names of the model's parameters
        self._stored: dict[str, Tensor] = {}  # of the state that is resumed, by bare names

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Begin with the model's weights, or go on with those of the state that is resumed.

        Raises:
            BadInput: the state has none, or others.
        """
        self.tensors = {
            name: parameter.detach().float().clone()
            for name, parameter in kwargs["model"].named_parameters()
            if parameter.requires_grad
        }
        if state.global_step:
            self._go_on(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Move the averages towards the new weights: `average += (1 - decay) (weight - average)`."""
        parameters = dict(kwargs["model"].named_parameters())
        update = get_ema_multi_avg_fn(decay_at(state.global_step, self.decay))
        averages = [own_part(tensor) for tensor in self.tensors.values()]
        update(averages, [own_part(parameters[name]) for name in self.tensors], 0)

    def gathered_state(self) -> dict[str, Tensor]:
        """The averages, whole, on the first rank; {} on others. Every rank calls this."""
        gathered = {}
        for name, tensor in self.tensors.items():  # one by one, kept by the first rank alone
            entire = whole(tensor)
            if is_first():
                gathered[bare_name(name)] = entire.cpu()
        return gathered

    def resume_from(self, stored: Mapping[str, Tensor]) -> None:
        """Take the averages of the state that is resumed, in the first rank."""
        self._stored = dict(stored)

    def _go_on(self, state: Path) -> None:
        """Give every rank its part of the averages of a state."""
        on_every_rank(lambda: self._check(state) if is_first() else None)
        for name, tensor in self.tensors.items():
            _spread(self._stored.pop(bare_name(name), None), tensor)

    def _check(self, state: Path) -> None:
        shapes = {name: tensor.shape for name, tensor in self._stored.items()}
        if shapes != {bare_name(name): tensor.shape for name, tensor in self.tensors.items()}:
            what = "averages of other parameters than are trained" if shapes else "no averaged weights"
            raise BadInput(f"{state} has {what}: remove it to begin again at step 0")


@torch.no_grad()
def _spread(value: Tensor | None, into: Tensor) -> None:
    """Copy a whole tensor of the first process into those of all, each its own part."""
    part = own_part(into)
    whole_one = torch.empty(into.shape, device=part.device) if value is None else value.to(part.device)
    if isinstance(into, DTensor):
        part.copy_(distribute_tensor(whole_one, into.device_mesh, into.placements).to_local())
    else:
        part.copy_(broadcast(whole_one))
