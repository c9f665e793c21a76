"""Tells what a training costs before its first step, and what share of the devices' peak it reaches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.train.throughput import TrainingCost, peak_flops, picture_lengths
from sar_eval.train.training_options import TrainingOptions


class CostCallback(TrainerCallback):
    """Counts for the pictures of the first micro-batch, of the first process.

    Attributes:
        cost: None until the training begins, and in other processes.
        peak: FLOP/s of all devices, None if it is not known.
    """

    def __init__(self, options: TrainingOptions, tell: Callable[[str], None]) -> None:
        self._options, self._tell = options, tell
        self.cost: TrainingCost | None = None
        self.peak: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Count, and tell."""
        batches = kwargs["train_dataloader"].dataset
        batch = next(iter(batches), None) if state.is_world_process_zero else None
        if batch is None:
            return
        if self._options.workers:  # they read it anew
            batches.stream.forget()
        self.cost = training_cost(self._options, kwargs["model"], batch, args.world_size)
        peak = peak_flops(torch.device(args.device), self._options.computed_in)
        self.peak = peak and peak * args.world_size
        self._tell(self.cost.summary())

    def utilisation(self, tokens_per_s: float) -> float | None:
        """Model FLOPs utilisation of all devices at a number of visual tokens a second."""
        if self.cost is None or self.peak is None:
            return None
        return self.cost.flops_a_token * tokens_per_s / self.peak


def training_cost(
    options: TrainingOptions, model: Any, batch: Mapping[str, Any], ranks: int
) -> TrainingCost:
    """What a step costs each of some devices, whose pictures are all like those of a micro-batch.

    Args:
        options: how it is trained.
        model: a `TrainedDecoder`, perhaps with adapters.
        batch: of `MicroBatches`.
        ranks: devices; they share the state if accelerate was told to use FSDP.
    """
    config = DecoderConfig.from_dict(model.config.to_dict() | {"architectures": ["SimpARForCausalLM"]})
    codes = model.config.vocab_size - model.visual_start
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return TrainingCost(
        config=config,
        rows=codes if options.loss == "visual" else config.vocab_size,
        lengths=picture_lengths(batch),
        micro=options.micro_batch(ranks),
        precision=options.computed_in,
        checkpointing=options.gradient_checkpointing,
        chunked=options.loss == "visual",
        ema=options.ema > 0,
        packed=options.pack,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad) if options.lora else None,
        shards=ranks if sharded else 1,
    )
