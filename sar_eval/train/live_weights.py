"""The weights of a decoder in training as a checkpoint would hold them: whole, in bfloat16, named alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sar_eval.train.launcher import is_first
from sar_eval.train.lora import decoder_tensors, is_adapter

# What wrappers put into the names of parameters: torch.compile, DDP, activation checkpointing.
WRAPPERS = ("_orig_mod.", "module.", "_checkpoint_wrapped_module.")


@torch.no_grad()
def live_weights(model: nn.Module, averaged: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors one by one, for `TokenEngine.load_weights` or a checkpoint folder.

    In bfloat16, as they are written, so that what is evaluated is what a checkpoint would draw. A tied head
    is left out, adapters are merged. Under FSDP2 every rank must take all of them: each tensor is gathered
    when it is asked for.

    Args:
        model: in training, whatever wraps it.
        averaged: values to take in place of the model's own, by the names of its parameters.
    """
    named = model.named_parameters()
    tensors = {bare_name(name): averaged.get(name, parameter) for name, parameter in named}
    for name, tensor in decoder_tensors(tensors, lambda name: whole(tensors[name])):
        yield name, tensor.to(torch.bfloat16)


def whole_weights(model: nn.Module, averaged: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU, in the first process; {} in others, which must call it too."""
    found = {}
    for name, tensor in live_weights(model, averaged):
        if is_first():
            found[name] = tensor.cpu()
    return found


def whole_adapters(model: nn.Module) -> dict[str, Tensor]:
    """Adapters in float32 on the CPU, in the first process; {} in others, which must call it too."""
    found = {}
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            tensor = whole(parameter)
            if is_first():
                found[bare_name(name)] = tensor.float().cpu()
    return found


def bare_name(name: str) -> str:
    """A parameter's name in the checkpoint."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards; a collective if it has any."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def own_part(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this rank, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
