"""Means with 95 % confidence intervals, clustered by prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sar_eval.types import Metric

RESAMPLES = 10_000
CHUNK_SIZE = 1_000_000  # counts held in memory at once: 8 MB, and as much again as floats
Z95 = 1.959963984540054
ClusterTotals = tuple[
    NDArray[np.float64], NDArray[np.float64]
]  # by prompt: sum of scores, number of images


def clustered_interval(
    strata: Sequence[Sequence[Sequence[float]]], seed: int = 0
) -> tuple[float, float, float]:
    """Mean over strata of the mean over images, with a 95 % interval.

    The interval is that of the percentile bootstrap. Near 0 and 1 it is too short, so for scores in
    [0, 1] it is extended to contain the Wilson interval for the prompts' effective sample size:
    Wilson's interval of each task, combined by the MOVER method (Newcombe 1998; Zou & Donner 2008).
    See docs/statistics.md.

    Args:
        strata: scores of the images, by task (the strata) and prompt (the clusters). Prompts are
            resampled with replacement within their task (Efron & Tibshirani 1993, ch. 8: the unit
            that was sampled is the unit that is resampled).
        seed: of the resampling.

    Returns:
        (mean, low, high). If all prompts score the same and scores are outside [0, 1], the variance
        cannot be estimated, and low = high = mean.
    """
    totals = [_cluster_totals(prompts) for prompts in strata if prompts]
    value = float(np.mean([sums.sum() / sizes.sum() for sums, sizes in totals]))
    low, high = _bootstrap(totals, seed)
    if _are_shares(strata):
        wilson_low, wilson_high = _combined_wilson_interval(totals)
        low, high = min(low, wilson_low), max(high, wilson_high)
    return value, min(low, value), max(high, value)


def _are_shares(strata: Sequence[Sequence[Sequence[float]]]) -> bool:
    """Whether all scores lie in [0, 1]."""
    scores = np.fromiter((score for task in strata for scores in task for score in scores), float)
    return bool(((scores >= 0) & (scores <= 1)).all())


def clustered_metric(name: str, strata: Sequence[Sequence[Sequence[float]]], scale: int = 1) -> Metric:
    """A mean with its interval (see `clustered_interval`), times `scale`; None if nothing was scored."""
    number = sum(len(scores) for prompts in strata for scores in prompts)
    if number == 0:
        return Metric(name, None, None, None, 0, scale)
    value, low, high = clustered_interval(strata)
    return Metric(name, scale * value, scale * low, scale * high, number, scale)


def difference_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean of paired differences, one per prompt, with its 95 % percentile bootstrap interval.

    Returns:
        (mean, low, high); all equal if all differences are.
    """
    totals = _cluster_totals([[difference] for difference in differences])
    value = float(totals[0].sum() / totals[1].sum())
    low, high = _bootstrap([totals], seed)
    return value, min(low, value), max(high, value)


def _cluster_totals(prompts: Sequence[Sequence[float]]) -> ClusterTotals:
    sums = np.array([math.fsum(scores) for scores in prompts])
    return sums, np.array([len(scores) for scores in prompts], float)


def _bootstrap(totals: Sequence[ClusterTotals], seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    if all(_is_constant(task) for task in totals):  # every resample has the same mean, but for rounding
        value = float(np.mean([sums.sum() / sizes.sum() for sums, sizes in totals]))
        return value, value
    means = np.mean([_resample(sums, sizes, rng) for sums, sizes in totals], axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _is_constant(totals: ClusterTotals) -> bool:
    """Whether all prompts have the same mean (to 1e-12, as sums are rounded)."""
    sums, sizes = totals
    return bool(np.ptp(sums / sizes) < 1e-12)


def _resample(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of resampled prompts, in chunks: all counts at once could take gigabytes.

    Prompts with equal totals are counted together; with four images right or wrong there are five kinds.
    """
    kinds, numbers = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    rows = max(1, CHUNK_SIZE // len(numbers))
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        counts = rng.multinomial(len(sums), numbers / len(sums), min(rows, RESAMPLES - start))
        totals = counts.astype(float) @ kinds.T
        means[start : start + rows] = totals[:, 0] / totals[:, 1]
    return means


def _combined_wilson_interval(totals: Sequence[ClusterTotals]) -> tuple[float, float]:
    """Interval of the mean of independent tasks from that of each (MOVER; Zou & Donner 2008)."""
    limits = np.array([_task_wilson_interval(task) for task in totals])
    shares = np.array([sums.sum() / sizes.sum() for sums, sizes in totals])
    below, above = np.sqrt(((limits - shares[:, None]) ** 2).sum(axis=0)) / len(totals)
    value = shares.mean()
    return max(0.0, float(value - below)), min(1.0, float(value + above))


def _task_wilson_interval(totals: ClusterTotals) -> tuple[float, float]:
    """Wilson's interval for the effective sample size, no narrower than with all images right or wrong.

    The effective sample size of a task without errors cannot be estimated and is set to its number of
    prompts. Without the bound, one wrong image could raise the lower limit, because then it can be.
    """
    sums, sizes = totals
    low, high = wilson_interval(float(sums.sum() / sizes.sum()), _effective_sample_size(totals))
    return min(low, wilson_interval(1, len(sums))[0]), max(high, wilson_interval(0, len(sums))[1])


def _effective_sample_size(totals: ClusterTotals) -> float:
    """Number of independent images with the same variance: p (1 - p) / var(mean) (Kish 1965).

    The variance is the ratio estimator's over prompts. If all prompts have equally many right-or-wrong
    images, the size is between the number of prompts (their images agree) and of images (independent),
    up to sampling error.
    """
    sums, sizes = totals
    if _is_constant(totals):
        return len(sums)
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
