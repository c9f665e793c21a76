"""A rollout: a sampled picture with the log-probabilities of its tokens, for a policy-gradient trainer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sar_eval.types import Draw, Generation


def _none() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A draw, what became of it, and how probable its tokens were.

    Attributes:
        draw: what was asked for.
        generation: its image and visual codes, or why there is none.
        prompts: token ids of the prompted branch and, with guidance, of the negative branch, as drawn.
        log_probs: float32 `[N]`, of the sampled tokens under the distribution that they were sampled from
            (guidance, temperature, top-k, top-p). Empty if the draw failed.
        conditional: float32 `[N]`, of the same tokens under the prompted branch alone, at the same
            temperature, without top-k and top-p. Empty where the engine does not know them.
    """

    draw: Draw
    generation: Generation
    prompts: tuple[tuple[int, ...], ...] = ()
    log_probs: NDArray[np.float32] = field(default_factory=_none)
    conditional: NDArray[np.float32] = field(default_factory=_none)
