"""The order in which a sequential run draws its prompts: at random, with every task in every round."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

from sar_eval.types import DrawingOrder, Prompt

ROUNDS = 10


def draw_in_order(prompts: Iterable[Prompt], order: DrawingOrder) -> list[int]:
    """Positions in the suite, in the order of drawing.

    Within its task a prompt's place depends on a hash of the seed and its id alone. Tasks are spread
    evenly: any beginning of the order has the same share of each, to within a prompt.
    """
    by_task: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for position, prompt in enumerate(prompts):
        by_task[prompt.tag if order.by_tag else ""].append((_hash(order.seed, prompt.id), position))
    places = [
        ((2 * rank + 1) / len(found), *drawn)
        for found in by_task.values()
        for rank, drawn in enumerate(sorted(found))
    ]
    return [position for _, _, position in sorted(places)]


def round_ends(prompts: int, smallest_task: int) -> list[int]:
    """How many prompts have been drawn at the end of each round: a tenth, two tenths, ..., all.

    With a task of fewer than ten prompts there are only as many rounds, so that each can have one.
    """
    rounds = min(ROUNDS, smallest_task)
    return [-(-prompts * number // rounds) for number in range(1, rounds + 1)]


def _hash(seed: int, prompt_id: str) -> bytes:
    return hashlib.blake2b(f"order\x00{seed}\x00{prompt_id}".encode(), digest_size=8).digest()
