"""Whether the engine still draws with the weights that are trained, seen from its log-probabilities.

Trainer and engine compute the same log-probabilities in another order, so they differ by rounding. An
engine that missed an update, or reads another prompt or protocol, differs by more, and more at every step.
"""

from __future__ import annotations

import math

from sar_eval.errors import SarEvalError

# Nats a token that the two may differ by on the mean, at guidance 1: bfloat16 has 8 bits of a logit.
ROUNDING = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02}
GROWTH = 3.0  # times what was measured before the first update


class StaleEngine(SarEvalError):
    """The engine does not draw with the policy's weights."""


class EngineGap:
    """Holds every step's gap against rounding, and against what it was before training changed anything."""

    def __init__(self, dtype: str, guidance: float, max_gap: float = 0.0) -> None:
        """Set the limits.

        Args:
            dtype: of the engine's weights.
            guidance: scale s; independent rounding of two branches grows by sqrt(s^2 + (s - 1)^2).
            max_gap: nats on the mean, instead of the dtype's rounding; 0 for that.
        """
        amplified = ROUNDING[dtype] * math.hypot(guidance, guidance - 1)
        self.limit = max_gap or amplified
        self.fixed = max_gap > 0

    def check(self, mean: float) -> None:
        """Look at the mean |difference| of a step's log-probabilities, before its update.

        Raises:
            StaleEngine: it is more than rounding.
        """
        if not mean <= self.limit:
            raise StaleEngine(
                f"the engine's log-probabilities are off by {mean:.3g} nats a token, rounding explains "
                f"{self.limit:.3g}: it does not draw with the weights that are trained, or under another "
                "protocol. Nothing was updated with these pictures. If only precision is to blame, raise "
                "grpo.max_gap"
            )
        if not self.fixed:  # the first gap is rounding alone, whatever this machine's is
            self.limit = min(self.limit, max(GROWTH * mean, ROUNDING["float32"]))
            self.fixed = True
