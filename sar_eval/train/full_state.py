"""The whole state of a model and its optimiser, however many processes hold it: plain tensors by name.

The first rank alone reads and writes states, in one form for a single process, DDP and FSDP2, so that a
training goes on under any of them and on any number of processes. It needs memory for a state, 12 bytes
a parameter; the others receive one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from sar_eval.train.process_group import ranks


def full_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Trained weights and their moments, as `load_full_state` takes them; empty on all ranks but the first.

    Every rank must call it, between an optimiser step and the next backward pass. Frozen weights, those
    below adapters, are left out: the start has them.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return {
        "model": get_model_state_dict(model, options=options),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }


def load_full_state(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Give every rank its part of a state.

    Every rank must call it; only the first one's `state` is read.

    Raises:
        RuntimeError, LookupError, ValueError: the state is of another model.
    """
    frozen = not all(parameter.requires_grad for parameter in model.parameters())
    options = StateDictOptions(
        full_state_dict=True,
        broadcast_from_rank0=ranks() > 1,
        strict=not frozen,
        ignore_frozen_params=frozen,
    )
    # Not `set_state_dict`: a rank whose state is empty would take no part in its broadcast.
    set_model_state_dict(model, dict(state.get("model", {})), options=options)
    set_optimizer_state_dict(model, optimizer, dict(state.get("optimizer", {})), options=options)
