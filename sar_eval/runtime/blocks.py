"""How a run's draws are cut into blocks: the same cut for any number of workers and any resume."""

from __future__ import annotations

from collections.abc import Sequence

from sar_eval.spec import RunSpec
from sar_eval.types import Draw, Prompt, make_draw


def make_blocks(prompts: Sequence[Prompt], spec: RunSpec) -> list[list[Draw]]:
    """All draws, prompt by prompt, in blocks of `batch_size`."""
    draws = [
        make_draw(prompt, index, spec.seed) for prompt in prompts for index in range(spec.images_per_prompt)
    ]
    return [draws[i : i + spec.batch_size] for i in range(0, len(draws), spec.batch_size)]
