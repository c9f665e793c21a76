"""Low-rank adapters: a trained difference B A of rank r for each weight matrix, which itself stays.

E. Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", 2021: W' = W + (alpha / r) B A. All
linear layers of the decoder get one, as adapters of the attention alone learn less at equal size, and alpha
is fixed, so that the best learning rate hardly depends on the rank: about ten times that of training all
weights (J. Schulman and others, "LoRA Without Regret", 2025). Embedding and head stay: a checkpoint has its
codes' rows already, and training 64,000 of them would be several times the adapters' size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.train.start import CheckpointStart, Start

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALPHA = 32
_INNER, _ADAPTER, _NAME = ".base_layer.", ".lora_", "default"


def check_lora(start: Start, rank: int) -> None:
    """Refuse adapters of weights that are saved nowhere, and so could be merged with nothing.

    Raises:
        BadInput: the start is no checkpoint.
    """
    if rank and not isinstance(start, CheckpointStart):
        raise BadInput(
            f"--lora {rank} trains adapters of a checkpoint: name one with --ckpt. The visual codes of a "
            "start by --init or --shape are new, and their rows would stay random"
        )


def add_adapters(model: Any, rank: int, seed: int) -> None:
    """Put adapters into the decoder's linear layers; nothing else is trained from then on.

    They are float32, as the weights, and A is random by `seed`, B zero: the decoder's output stays.
    """
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora_config(rank), model, _NAME)


def lora_config(rank: int, base: str = "") -> Any:
    """peft's `LoraConfig`; `base` names the checkpoint, of the hub with its commit."""
    from peft import LoraConfig

    name, _, revision = base.partition("@")
    return LoraConfig(
        r=rank,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
        base_model_name_or_path=name or None,
        revision=revision or None,
    )


def has_adapters(model: Any) -> bool:
    """Whether `add_adapters` was called for the model."""
    return any(_ADAPTER in name for name, _ in model.named_parameters())


def adapter_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters among a model's tensors, in float32 on the CPU, by the names of peft's files."""
    return {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.detach().float().cpu().contiguous()
        for name, tensor in state.items()
        if _ADAPTER in name
    }


def decoder_tensors(model: Any, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A decoder's tensors by their names in a checkpoint, adapters merged into copies of the weights.

    Args:
        model: with adapters or without; it stays as it is.
        state: its tensors, where they had to be gathered from several processes.
    """
    state = model.state_dict() if state is None else state
    plain = {name.replace(_INNER, "."): t for name, t in state.items() if _ADAPTER not in name}
    for name in (name for name in state if f"{_ADAPTER}A.{_NAME}.weight" in name):
        layer = name.partition(_ADAPTER)[0]
        scaling = model.get_submodule(layer).scaling[_NAME]
        down, up = state[name], state[name.replace(f"{_ADAPTER}A.", f"{_ADAPTER}B.")]
        weight = f"{layer}.weight"
        plain[weight] = plain[weight].detach().float() + scaling * (up.float() @ down.float()).detach()
    return plain
