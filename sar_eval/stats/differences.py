"""Everything that a comparison says of one measure of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sar_eval.comparisons import ALPHA, Difference
from sar_eval.measures import Measure
from sar_eval.stats.multiple import holm
from sar_eval.stats.paired import bootstrap_values, interval, permutation_p, rounding_of, value_of
from sar_eval.stats.pairing import Paired, pair
from sar_eval.stats.power import detectable, images_needed, noise_share, prompts_needed
from sar_eval.stats.totals import mean_of


def difference(paired: Paired, seed: int = 0) -> Difference:
    """Second less first; `p_adjusted` is p (see `adjust`).

    Args:
        paired: with at least one prompt that both runs have.
        seed: of the resampling.
    """
    scale, tasks = paired.scale, paired.tasks
    resampled = bootstrap_values(paired, seed)
    low, high = interval(paired, resampled, 1 - ALPHA)
    lower, upper = interval(paired, resampled, 1 - 2 * ALPHA)
    p = permutation_p(tasks, seed)
    gains = np.concatenate([task.gains for task in tasks])
    tie = rounding_of(tasks)
    won, lost = int((gains > tie).sum()), int((gains < -tie).sum())
    return Difference(
        measure=paired.name,
        scale=scale,
        first=scale * mean_of([task.first for task in tasks]),
        second=scale * mean_of([task.second for task in tasks]),
        value=scale * value_of(paired),
        low=_times(scale, low),
        high=_times(scale, high),
        lower=_times(scale, lower),
        upper=_times(scale, upper),
        p=p,
        p_adjusted=p,
        won=won,
        lost=lost,
        tied=len(gains) - won - lost,
        prompts=paired.prompts,
        draws=paired.draws,
        unpaired=paired.unpaired,
        detectable=_times(scale, detectable(paired)),
        prompts_needed=prompts_needed(paired),
        images_needed=images_needed(paired),
        noise_share=noise_share(paired),
    )


def differences(first: Sequence[Measure], second: Sequence[Measure]) -> tuple[Difference, ...]:
    """Of every measure that both runs have and have a common draw of, but for effects of rules."""
    others = {measure.name: measure for measure in second}
    pairs = [pair(m, others[m.name]) for m in first if m.name in others and not m.is_effect]
    return tuple(difference(paired) for paired in pairs if paired.tasks)


def one_sided_bounds(
    first: Measure, second: Measure, alpha: float, seed: int = 0
) -> tuple[float | None, float | None]:
    """Bounds of second less first, in the measure's unit, each with an error of `alpha`."""
    paired = pair(first, second)
    lower, upper = interval(paired, bootstrap_values(paired, seed), 1 - 2 * alpha)
    return _times(paired.scale, lower), _times(paired.scale, upper)


def adjust(pairs: Sequence[Sequence[Difference]]) -> list[tuple[Difference, ...]]:
    """Holm's adjustment of p over the measures of each group, in all pairs of runs together.

    Headline figures, which have no group, are each a question of its own.
    """
    adjusted: list[list[Difference]] = [list(found) for found in pairs]
    families: dict[str, list[tuple[int, int]]] = {}
    for n, found in enumerate(pairs):
        for k, one in enumerate(found):
            families.setdefault(one.group or one.measure, []).append((n, k))
    for places in families.values():
        for (n, k), p in zip(places, holm([pairs[n][k].p for n, k in places]), strict=True):
            adjusted[n][k] = replace(pairs[n][k], p_adjusted=p)
    return [tuple(found) for found in adjusted]


def _times(scale: int, value: float | None) -> float | None:
    return None if value is None else scale * value
