"""Low-rank adapters: a trained difference B A of rank r for each weight matrix, which itself stays.

E. Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", 2021: W' = W + (alpha / r) B A. All
linear layers of the decoder get one, as adapters of the attention alone learn less at equal size, and alpha
is fixed, so that the best learning rate hardly depends on the rank: about ten times that of training all
weights (J. Schulman and others, "LoRA Without Regret", 2025). Embedding and head stay: a checkpoint has its
codes' rows already, and training 64,000 of them would be several times the adapters' size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.families.simplear import Checkpoint
from sar_eval.tensors.hub import HUB_NAME
from sar_eval.train.start import CheckpointStart, Start

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALPHA = 32
_INNER, _ADAPTER, _NAME = ".base_layer.", ".lora_", "default"  # in peft's names of tensors


def adapter_base(start: Start, rank: int, ema: float = 0.0) -> Checkpoint | None:
    """The checkpoint that adapters are trained for; None where `rank` is 0, and all weights are trained.

    Raises:
        BadInput: the start is saved nowhere, so that adapters could be merged with nothing; or weights are
            averaged, which would be those of the adapters' factors and not of their product.
        MissingExtra: peft is not installed.
    """
    if not rank:
        return None
    need("peft", extra="train", what=f"--lora {rank}")
    if not isinstance(start, CheckpointStart):
        raise BadInput(
            f"--lora {rank} trains adapters of a checkpoint: name one with --ckpt. The visual codes of a "
            "start by --init or --shape are new, and their rows would stay random"
        )
    if ema:
        raise BadInput("--lora and --ema do not go together: leave one of them out")
    return start.checkpoint


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

    is_of_hub = HUB_NAME.fullmatch(base) is not None  # else a path, which may have the sign too
    name, _, revision = base.partition("@") if is_of_hub else (base, "", "")
    return LoraConfig(
        r=rank,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
        base_model_name_or_path=name or None,
        revision=revision or None,
    )


def is_adapter(name: str) -> bool:
    """Whether a tensor of this name is one that `add_adapters` put into the model."""
    return _ADAPTER in name


def peft_names(adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's adapters by the names of peft's files."""
    return {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.contiguous()
        for name, tensor in adapters.items()
    }


def decoder_tensors(
    names: Collection[str], tensor: Callable[[str], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """A decoder's tensors one by one by their names in a checkpoint, adapters added to copies of weights.

    Args:
        names: of the model's tensors; with adapters, as `add_adapters` makes them, or without.
        tensor: gives one of them; asked in the same order on every rank, so it may gather shards.
    """
    for name in names:
        if not is_adapter(name):
            layer = name.removesuffix(f"{_INNER}weight")
            down, up = (f"{layer}{_ADAPTER}{factor}.{_NAME}.weight" for factor in "AB")
            found = tensor(name).detach()
            if down in names:
                found = found.float() + _difference(tensor(down), tensor(up)).to(found.device)
            yield name.replace(_INNER, "."), found


def _difference(down: Tensor, up: Tensor) -> Tensor:
    """What an adapter of A `[r, in]` and B `[out, r]` adds to its weight `[out, in]`."""
    return (ALPHA / len(down)) * (up.detach().float() @ down.detach().float())
