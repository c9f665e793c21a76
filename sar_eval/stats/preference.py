"""How probable it is that one of two is preferred, from the scores of a preference model."""

from __future__ import annotations

import math

import numpy as np

from sar_eval.measures import Measure, Stratum
from sar_eval.stats.intervals import metric_of
from sar_eval.stats.pairing import join
from sar_eval.types import Metric


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


def mean_preference(name: str, first: Measure, second: Measure) -> Metric | None:
    """The mean probability that the second run's picture of a prompt and index is preferred to the first's.

    Args:
        name: of the figure.
        first, second: a preference model's raw scores of two runs.

    Returns:
        With a 95 % interval clustered by prompt; None if the runs have no such picture in common.
    """
    others = {stratum.task: stratum for stratum in second.strata}
    pairs = [join(stratum, others[stratum.task]) for stratum in first.strata if stratum.task in others]
    found = [_probabilities(*pair) for pair in pairs if len(pair[0].indices)]
    return metric_of(Measure(name, found)) if found else None


def _probabilities(first: Stratum, second: Stratum) -> Stratum:
    """That the second is preferred, for each draw; both have the same draws."""
    scores = [(stratum.sums / stratum.weights).tolist() for stratum in (second, first)]
    values = np.array([preference(*pair) for pair in zip(*scores, strict=True)])
    return Stratum(first.task, first.prompts, first.starts, first.indices, values, np.ones(len(values)))
