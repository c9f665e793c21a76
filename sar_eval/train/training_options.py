"""How a decoder is trained: what `train pretrain`, `train sft` and recipes set. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from sar_eval.errors import BadInput
from sar_eval.types import Json

Schedule = Literal["cosine", "constant"]
Loss = Literal["visual", "full"]
Precision = Literal["bfloat16", "float32"]
AskedPrecision = Literal["auto", "bfloat16", "float32"]
# Options that decide about memory, time and files, and of the weights about their rounding alone.
ROUNDING = ("micro", "pack", "gradient_checkpointing", "compile", "workers", "save_every", "log_every")
MAY_CHANGE = (*ROUNDING, "stop_at")  # of a training that goes on; and see `may_change`
Positive = Annotated[int, Meta(ge=1, le=10**9)]
Whole = Annotated[int, Meta(ge=0, le=10**9)]
MAX_SEED, MAX_BATCH = 2**32 - 1, 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Training options.

    Attributes:
        steps: optimiser steps of the whole schedule, including those before a resume.
        learning_rate: peak, after a linear warm-up of `warmup` steps; a recipe's default is its start's.
        batch_size: pictures of one optimiser step, over all devices.
        micro: pictures of one forward pass on a device; 0 takes all of the device's share at once.
        schedule: what follows: a cosine to zero, or the peak to the end.
        weight_decay: AdamW's, of matrices.
        beta2: AdamW's decay of squared gradients; its first one is 0.9.
        max_grad_norm: gradients are scaled down to it.
        caption_dropout: share of pictures trained without their caption, for guidance.
        seed: of new weights, the order of the data and dropped captions.
        save_every: steps between states that a run can resume from.
        stop_at: stop after this step of the schedule (0: at its end). A base for fine-tuning need not be
            annealed.
        loss: cross-entropy of the visual tokens over the visual codes alone, which is what engines sample
            from, or over the full vocabulary, as SimpleAR trains.
        precision: of the forward pass; weights, optimiser and loss are float32. "auto" is bfloat16 where
            the device computes in it (see `precision.usual_precision`); a training that goes on keeps its.
        pack: put the pictures of a forward pass into one row, so that none is padded.
        window: rows that are shuffled at once, after their row groups.
        workers: processes that read data, beside each that trains.
        gradient_checkpointing: compute activations again instead of keeping them.
        compile: compile the decoder's layers.
        log_every: steps between points of the curve.
        ema: decay of averaged weights; 0 keeps none.
        lora: rank of low-rank adapters that are trained in place of the weights; 0 trains all weights.
    """

    steps: Positive
    learning_rate: Annotated[float, Meta(gt=0, le=10)]
    batch_size: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 64
    micro: Whole = 0
    warmup: Whole = 200
    schedule: Schedule = "cosine"
    weight_decay: Annotated[float, Meta(ge=0, le=10)] = 0.05
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.95
    max_grad_norm: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    caption_dropout: Annotated[float, Meta(ge=0, le=1)] = 0.1
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] = 0
    save_every: Positive = 500
    stop_at: Whole = 0
    loss: Loss = "visual"
    precision: AskedPrecision = "auto"
    pack: bool = False
    window: Positive = 16_384
    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    gradient_checkpointing: bool = False
    compile: bool = False
    log_every: Positive = 20
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    lora: Annotated[int, Meta(ge=0, le=4096)] = 0

    def __post_init__(self) -> None:
        """Refuse what no training can do.

        Raises:
            BadInput: the end lies after the schedule's, where the rate is 0; or a step is no whole number
                of micro-batches.
        """
        if self.stop_at > self.steps:
            raise BadInput(
                f"--stop-at is {self.stop_at}, after the end of the schedule, --steps {self.steps}"
            )
        if self.micro and self.batch_size % self.micro:
            raise BadInput(
                f"--batch-size {self.batch_size} is no multiple of --micro {self.micro}: take one of its "
                "divisors"
            )

    def may_change(self, stored: Mapping[str, Json]) -> tuple[str, ...]:
        """Options that may be others than those that the training began with.

        More steps of a constant rate only follow those that were made; a cosine of another length is
        another schedule from its first step on.
        """
        is_constant = stored.get("schedule") == self.schedule == "constant"
        return (*MAY_CHANGE, "steps") if is_constant else MAY_CHANGE

    @property
    def computed_in(self) -> Precision:
        """The precision of the forward pass.

        Raises:
            ValueError: it is "auto", which `fit` puts another in place of.
        """
        if self.precision == "auto":
            raise ValueError("the precision is not chosen yet")
        return self.precision

    @property
    def last_step(self) -> int:
        """The step after which this training ends."""
        return self.stop_at or self.steps

    def micro_batch(self, ranks: int) -> int:
        """Pictures of one forward pass, on each of `ranks` devices.

        Raises:
            BadInput: the batch cannot be shared equally.
        """
        share, rest = divmod(self.batch_size, ranks)
        micro = self.micro or share
        if rest or not share or share % micro:
            raise BadInput(
                f"--batch-size {self.batch_size} cannot be shared by {ranks} devices in forward passes of "
                f"{micro or 1} pictures: take a multiple of {ranks * (self.micro or 1)}"
            )
        return micro

    def accumulation(self, ranks: int) -> int:
        """Forward passes of one optimiser step on each of `ranks` devices."""
        return self.batch_size // (ranks * self.micro_batch(ranks))
