"""`[evaluation]` of a training recipe: which benchmark is drawn and judged while a decoder is trained."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sar_eval.rewards.holdout import Holdout
from sar_eval.rewards.recipe_tables import HoldoutTable, Positive, Seed, Whole


class EvaluationTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How training is watched; what is drawn and judged stays the same, or nothing could be paired.

    Attributes:
        benchmark: its recipe gives prompts, protocol and judge; "" for no evaluation.
        every: optimiser steps between evaluations; the start and the last step are always evaluated.
        prompts: how many are drawn, evenly from the benchmark's tasks; 0 for all.
        images_per_prompt: of each evaluation.
        judges: further judges or scorers of the same pictures.
        device: of all judges: "cpu", "cuda" (each rank's own) or a card, as "cuda:1".
        dtype: of the engine that draws; "" for bfloat16 on a GPU and float32 on the CPU.
        batch_size: pictures drawn at once on a device, at most.
        seed: of all draws, the same at every step.
    """

    benchmark: str = ""
    every: Positive = 500
    prompts: Whole = 0
    images_per_prompt: Positive = 1
    judges: tuple[str, ...] = ()
    device: str = "cpu"
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""
    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 128
    seed: Seed = 0

    def holdout(self, resolution: int, where: str) -> Holdout | None:
        """What is drawn and who judges it, found and checked before anything is loaded; None without one.

        Args:
            resolution: of the training's pictures in pixels, for a benchmark that names none.
            where: the recipe's file, or how it was asked for; for messages.

        Raises:
            BadInput, UnknownName: no such benchmark or judge, or the benchmark has no judge or prompts.
        """
        if not self.benchmark:
            return None
        table = HoldoutTable(
            benchmark=self.benchmark,
            judges=self.judges,
            device=self.device,
            images_per_prompt=self.images_per_prompt,
            max_prompts=self.prompts,
            every=self.every,
        )
        return Holdout.read(table, None, resolution, self.seed, where, "evaluation")
