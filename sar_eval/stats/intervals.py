"""Means with 95 % confidence intervals, clustered by prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sar_eval.measures import Bounds, Measure
from sar_eval.stats.paired import bootstrap_values, interval
from sar_eval.stats.pairing import Paired, PairedTask
from sar_eval.stats.totals import Totals, bounds_of, mean_of, over_tasks, relative, totals_of
from sar_eval.types import Metric

RESAMPLES = 10_000
CHUNK_SIZE = 1_000_000  # counts held in memory at once: 8 MB, and as much again as floats
Z95 = 1.959963984540054


def metric_of(measure: Measure) -> Metric:
    """The figure with its 95 % interval, times its scale; None if nothing was scored."""
    totals = totals_of(measure)
    known = partial(Metric, measure.name, scale=measure.scale, bounds=measure.bounds)
    if not totals:
        return known(None, None, None, measure.count or 0)
    number = int(sum(task.sizes.sum() for task in totals)) if measure.count is None else measure.count
    if not measure.has_interval:
        return known(measure.scale * mean_of(totals), None, None, number)
    low: float | None
    high: float | None
    if measure.bounds is None and not measure.is_effect:
        value, low, high = unbounded_interval(totals)
    else:
        value, low, high = clustered_interval(totals, bounds_of(measure))
    low, high = (None if end is None else measure.scale * end for end in (low, high))
    return known(measure.scale * value, low, high, number)


def unbounded_interval(totals: Sequence[Totals], seed: int = 0) -> tuple[float, float | None, float | None]:
    """Mean over strata of scores of any size, with a 95 % interval: that of a difference from zeros.

    The percentile bootstrap's, and Student's with the standard error clustered by prompt, as the former is
    too short for few prompts (Efron & Tibshirani 1993, ch. 12).

    Returns:
        (mean, low, high); None and None for one prompt, of which no spread is known.
    """
    zeros = [Totals(np.zeros(len(task)), task.sizes, task.share) for task in totals]
    tasks = [PairedTask("", zero, task, 0, None) for zero, task in zip(zeros, totals, strict=True)]
    paired = Paired("", 1, None, tuple(tasks), 0)
    return mean_of(totals), *interval(paired, bootstrap_values(paired, seed), 0.95)


def clustered_interval(
    totals: Sequence[Totals], bounds: Bounds | None, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over strata of the mean over images, with a 95 % interval.

    The interval is that of the percentile bootstrap. Near the bounds it is too short, so for bounded scores
    it is extended to contain the Wilson interval for the prompts' effective sample size:
    Wilson's interval of each task, combined by the MOVER method (Newcombe 1998; Zou & Donner 2008).
    See docs/statistics.md.

    Args:
        totals: of the prompts, by task. Prompts are resampled with replacement within their task
            (Efron & Tibshirani 1993, ch. 8: the unit that was sampled is the unit that is resampled).
        bounds: between which all scores lie; None if there are none.
        seed: of the resampling.

    Returns:
        (mean, low, high). If all prompts score the same and scores have no bounds, the variance cannot be
        estimated, and low = high = mean.
    """
    value = mean_of(totals)
    low, high = _bootstrap(totals, seed)
    if bounds:
        least, span = bounds[0], bounds[1] - bounds[0]
        limits = _combined_wilson_interval([task.on_unit(bounds) for task in totals])
        wilson_low, wilson_high = (least + span * limit for limit in limits)
        low, high = min(low, wilson_low), max(high, wilson_high)
    return value, min(low, value), max(high, value)


def _bootstrap(totals: Sequence[Totals], seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    if all(task.is_constant for task in totals):  # every resample has the same mean, but for rounding
        return mean_of(totals), mean_of(totals)
    means = over_tasks([_resample(task, rng) for task in totals], [task.share for task in totals])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _resample(task: Totals, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of resampled prompts, in chunks: all counts at once could take gigabytes.

    Prompts with equal totals are counted together; with four images right or wrong there are five kinds.
    """
    kinds, numbers = np.unique(np.stack([task.sums, task.sizes]), axis=1, return_counts=True)
    rows = max(1, CHUNK_SIZE // len(numbers))
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        counts = rng.multinomial(len(task), numbers / len(task), min(rows, RESAMPLES - start))
        totals = counts.astype(float) @ kinds.T
        means[start : start + rows] = totals[:, 0] / totals[:, 1]
    return means


def _combined_wilson_interval(totals: Sequence[Totals]) -> tuple[float, float]:
    """Interval of the mean of independent tasks from that of each (MOVER; Zou & Donner 2008)."""
    limits = np.array([_task_wilson_interval(task) for task in totals])
    shares = np.array([task.mean for task in totals])
    weights = np.array(relative([task.share for task in totals]))
    below, above = np.sqrt(((weights[:, None] * (limits - shares[:, None])) ** 2).sum(axis=0)) / len(totals)
    value = (weights * shares).mean()
    return max(0.0, float(value - below)), min(1.0, float(value + above))


def _task_wilson_interval(task: Totals) -> tuple[float, float]:
    """Wilson's interval for the effective sample size, no narrower than with all images right or wrong.

    The effective sample size of a task without errors cannot be estimated and is set to its number of
    prompts. Without the bound, one wrong image could raise the lower limit, because then it can be.
    """
    low, high = wilson_interval(task.mean, _effective_sample_size(task))
    return min(low, wilson_interval(1, len(task))[0]), max(high, wilson_interval(0, len(task))[1])


def _effective_sample_size(task: Totals) -> float:
    """Number of independent images with the same variance: p (1 - p) / var(mean) (Kish 1965).

    The variance is the ratio estimator's over prompts. If all prompts have equally many right-or-wrong
    images, the size is between the number of prompts (their images agree) and of images (independent),
    up to sampling error.
    """
    if task.is_constant:
        return len(task)
    sums, sizes = task.sums, task.sizes
    share = sums.sum() / sizes.sum()
    return float(share * (1 - share) * sizes.sum() ** 2 / ((sums - share * sizes) ** 2).sum())


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of n trials (Wilson 1927); n may be fractional."""
    centre = share + Z95**2 / (2 * n)
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # Rounding may move a limit past 0 or 1 by an ulp.
    return (max(0.0, low) if share > 0 else 0.0), (min(1.0, high) if share < 1 else 1.0)
