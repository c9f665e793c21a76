"""What recipes of trainings share: ranges of numbers, and `[holdout]`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1, le=10**9)]
Whole = Annotated[int, Meta(ge=0, le=10**9)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Rate = Annotated[float, Meta(gt=0, le=10)]
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a recipe: unknown keys, other types and values out of range are refused."""


class HoldoutTable(Table, frozen=True):
    """`[holdout]`: how the policy is watched.

    Attributes:
        benchmark: recipe of the benchmark: its prompts, protocol and judge.
        judges: further judges or scorers of the same pictures.
        device: of all these judges: "cpu", "cuda" (each rank's own) or a card, as "cuda:1".
        images_per_prompt: of the hold-out's pictures.
        max_prompts: prompts of it that are drawn, evenly from its tags; 0 for all.
        every: steps between evaluations; the first and the last are always made.
        stop_if_falls: fall of a hold-out score, beyond its interval, at which training stops.
        falls_in_a_row: evaluations in a row that must find a judge fallen; each look is another chance of a
            false alarm.
        images_of_the_protocol: draw under the training protocol instead of the benchmark's.
    """

    benchmark: str
    judges: tuple[str, ...] = ()
    device: str = "cpu"
    images_per_prompt: Positive = 1
    max_prompts: Whole = 0
    every: Positive = 10
    stop_if_falls: NotNegative = 0.0
    falls_in_a_row: Positive = 1
    images_of_the_protocol: bool = False
