"""How probable it is that one of two is preferred, from the scores of a preference model."""

from __future__ import annotations

import math


def preference(first: float, second: float) -> float:
    """Probability that the first is preferred: the softmax of two raw scores (Bradley and Terry's model).

    As PickScore defines it (https://github.com/yuvalkirstain/PickScore, README) for two pictures of one
    prompt; a tie is 1/2.
    """
    difference = first - second
    if difference >= 0:
        return 1 / (1 + math.exp(-difference))
    small = math.exp(difference)  # so that nothing overflows
    return small / (1 + small)
