"""Intervals that know that the images of one prompt belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sar_eval.types import Metric

RESAMPLES = 10_000
CHUNK = 1_000_000  # counts held in memory at once: 8 MB, and as much again as floats
Z95 = 1.959963984540054
Table = tuple[NDArray[np.float64], NDArray[np.float64]]  # prompts' sums of scores, numbers of images


def clustered_interval(
    strata: Sequence[Sequence[Sequence[float]]], seed: int = 0
) -> tuple[float, float, float]:
    """Mean over strata of the mean over images, with a 95 % interval.

    The interval is the percentile bootstrap's. Near 0 and 1 that is too short, so for scores in
    [0, 1] it is widened to hold the Wilson interval for the prompts' effective number: Wilson's
    interval of each task, joined by squaring and adding the distances from the mean (Newcombe 1998;
    Zou & Donner 2008). See docs/statistics.md.

    Args:
        strata: tasks, in them prompts (the clusters), in them the scores of the images. Prompts are
            resampled with replacement within their task (Efron & Tibshirani 1993, ch. 8: the unit
            that was sampled is the unit that is resampled).
        seed: of the resampling.

    Returns:
        (mean, low, high). Where all prompts score alike and scores leave [0, 1], nothing tells how
        far the mean might vary, and low = high = mean.
    """
    tables = [_table(prompts) for prompts in strata if prompts]
    value = float(np.mean([sums.sum() / sizes.sum() for sums, sizes in tables]))
    low, high = _bootstrap(tables, seed)
    if all(0 <= score <= 1 for prompts in strata for scores in prompts for score in scores):
        wide_low, wide_high = _square_and_add(tables)
        low, high = min(low, wide_low), max(high, wide_high)
    return value, min(low, value), max(high, value)


def clustered_metric(name: str, strata: Sequence[Sequence[Sequence[float]]], scale: int = 1) -> Metric:
    """A mean with its interval (see `clustered_interval`), times `scale`; None where nothing was scored."""
    number = sum(len(scores) for prompts in strata for scores in prompts)
    if number == 0:
        return Metric(name, None, None, None, 0, scale)
    value, low, high = clustered_interval(strata)
    return Metric(name, scale * value, scale * low, scale * high, number, scale)


def difference_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean of the prompts' differences between two figures, with its 95 % percentile bootstrap interval.

    Returns:
        (mean, low, high); all three alike where all differences are.
    """
    table = _table([[difference] for difference in differences])
    value = float(table[0].sum() / table[1].sum())
    low, high = _bootstrap([table], seed)
    return value, min(low, value), max(high, value)


def _table(prompts: Sequence[Sequence[float]]) -> Table:
    sums = np.array([math.fsum(scores) for scores in prompts])
    return sums, np.array([len(scores) for scores in prompts], float)


def _bootstrap(tables: Sequence[Table], seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    if all(_is_blind(table) for table in tables):  # every resample gives the same, but for rounding
        value = float(np.mean([sums.sum() / sizes.sum() for sums, sizes in tables]))
        return value, value
    means = np.mean([_resample(sums, sizes, rng) for sums, sizes in tables], axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _is_blind(table: Table) -> bool:
    """Whether all prompts score alike (1e-12: means of three and of four equal scores may differ)."""
    sums, sizes = table
    return bool(np.ptp(sums / sizes) < 1e-12)


def _resample(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of resampled prompts, in chunks: all counts at once could take gigabytes.

    Prompts that score alike are drawn as one kind; with four images right or wrong there are five.
    """
    kinds, numbers = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    rows = max(1, CHUNK // len(numbers))
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        counts = rng.multinomial(len(sums), numbers / len(sums), min(rows, RESAMPLES - start))
        totals = counts.astype(float) @ kinds.T
        means[start : start + rows] = totals[:, 0] / totals[:, 1]
    return means


def _square_and_add(tables: Sequence[Table]) -> tuple[float, float]:
    """Interval of the mean of independent tasks from the interval of each (Zou & Donner 2008, MOVER)."""
    limits = np.array([_wilson_of_task(table) for table in tables])
    shares = np.array([sums.sum() / sizes.sum() for sums, sizes in tables])
    below, above = np.sqrt(((limits - shares[:, None]) ** 2).sum(axis=0)) / len(tables)
    value = shares.mean()
    return max(0.0, float(value - below)), min(1.0, float(value + above))


def _wilson_of_task(table: Table) -> tuple[float, float]:
    """Wilson's interval for the effective number, no better than a flawless task's of these prompts.

    The effective number of a flawless task is unknown, and taken to be its prompts. Without the
    bound, one wrong image would raise the lower limit, because it lets the number be estimated.
    """
    sums, sizes = table
    low, high = wilson(float(sums.sum() / sizes.sum()), _effective_number(table))
    return min(low, wilson(1, len(sums))[0]), max(high, wilson(0, len(sums))[1])


def _effective_number(table: Table) -> float:
    """How many independent images would tell as much: p (1 - p) over the mean's variance (Kish 1965).

    The variance is the ratio estimator's, from prompts. The number lies between prompts (a prompt's
    images agree) and images (they are independent) where prompts have equally many right-or-wrong
    images, but for chance.
    """
    sums, sizes = table
    if _is_blind(table):
        return len(sums)
    share = sums.sum() / sizes.sum()
    return float(share * (1 - share) * sizes.sum() ** 2 / ((sums - share * sizes) ** 2).sum())


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of n trials (Wilson 1927); n need not be whole."""
    centre = share + Z95**2 / (2 * n)
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # Rounding may carry a limit past the end by an ulp.
    return (max(0.0, low) if share > 0 else 0.0), (min(1.0, high) if share < 1 else 1.0)
