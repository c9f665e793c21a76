"""Interval and permutation test of the difference of two runs on the same prompts.

docs/comparing.md explains each number.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sar_eval.stats.pairing import Paired, PairedTask
from sar_eval.stats.totals import Totals

RESAMPLES = 10_000
CHUNK_SIZE = 1_000_000  # random counts held in memory at once
EXACT_UP_TO = 13  # prompts that differ: all 2^13 assignments are fewer than the random ones
MAX_KINDS = 20_000  # of totals: the mean of more prompts is drawn from the normal distribution it tends to
ROUNDING = 1e-10  # by which equal differences may differ
Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]


def value_of(paired: Paired) -> float:
    """Second less first: the unweighted mean over the tasks of the differences of their means."""
    return float(np.mean([task.second.mean - task.first.mean for task in paired.tasks]))


def standard_error(paired: Paired) -> float:
    """Of the difference, clustered by prompt, within tasks (ratio estimator; Cochran 1977, ch. 6).

    For scores in [0, 1], half a prompt is added to those that the second wins, loses, and to either kind of
    tie, as Agresti and Min (2005) do, so that few prompts that all agree leave some doubt. A prompt won or
    lost is as large as those seen are on average; if all are tied, it is 1.
    """
    variance = sum(_task_variance(task) for task in paired.tasks) / len(paired.tasks) ** 2
    if not paired.shares:
        return float(np.sqrt(variance))
    n, gains = paired.prompts, np.concatenate([task.gains for task in paired.tasks])
    differing = gains[np.abs(gains) > ROUNDING]
    typical = float((differing**2).mean()) if len(differing) else 1.0
    return float(np.sqrt(variance * n**2 + typical) / (n + 2))


def degrees_of_freedom(paired: Paired) -> int:
    """Of the standard error: prompts less tasks, at least 1."""
    return max(1, paired.prompts - len(paired.tasks))


def _task_variance(task: PairedTask) -> float:
    """Of the difference of a task's means; 0 for a single prompt, which has none."""
    n = len(task.first)
    return float(n / (n - 1) * (_contributions(task) ** 2).sum()) if n > 1 else 0.0


def _contributions(task: PairedTask) -> Floats:
    """What each prompt adds to the difference of the task's means, less its share of it."""
    return _shares(task.second) - _shares(task.first)


def _shares(totals: Totals) -> Floats:
    """How far each prompt's score is from the mean, as a share of all weights."""
    shares: Floats = (totals.sums - totals.mean * totals.sizes) / totals.sizes.sum()
    return shares


def bootstrap_values(paired: Paired, seed: int = 0) -> Floats:
    """The difference in each resample of the prompts, within their tasks [RESAMPLES]."""
    rng = np.random.default_rng(seed)
    return np.asarray(np.mean([_resample(task, rng) for task in paired.tasks], axis=0), float)


def _resample(task: PairedTask, rng: np.random.Generator) -> Floats:
    kinds, numbers = _kinds(task)
    if len(numbers) > MAX_KINDS:
        spread = np.sqrt(_task_variance(task))
        return rng.normal(task.second.mean - task.first.mean, spread, RESAMPLES)
    rows = max(1, CHUNK_SIZE // len(numbers))
    n, means = len(task.first), np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        counts = rng.multinomial(n, numbers / n, min(rows, RESAMPLES - start)).astype(float)
        means[start : start + rows] = _difference_of(counts @ kinds)
    return means


def _kinds(task: PairedTask) -> tuple[Floats, NDArray[np.int64]]:
    """Different totals (score and weight in the first, in the second) and how many prompts have each."""
    kinds, numbers = np.unique(_columns(task), axis=0, return_counts=True)
    return kinds, numbers


def _difference_of(totals: Floats) -> Floats:
    return totals[:, 2] / totals[:, 3] - totals[:, 0] / totals[:, 1]


def interval(paired: Paired, resampled: Floats, level: float) -> Interval:
    """The interval of the difference at this level, in the unit of the scores.

    It reaches from the lower of the lower limits of two intervals to the higher of the upper ones: that of
    the percentile bootstrap, which follows skewness, and Student's with the clustered standard error, which
    is right for few prompts (for scores in [0, 1] after Agresti and Min, see `standard_error`).

    Returns:
        (low, high); None and None for scores outside [0, 1] of too few prompts to know their spread.
    """
    value, n = value_of(paired), paired.prompts
    if not paired.shares and n <= len(paired.tasks):
        return None, None
    tail = (1 - level) / 2
    spread = float(stdtrit(degrees_of_freedom(paired), 1 - tail)) * standard_error(paired)
    centre = value * n / (n + 2) if paired.shares else value
    low, high = np.percentile(resampled, [100 * tail, 100 * (1 - tail)]).tolist()
    low, high = min(low, value, centre - spread), max(high, value, centre + spread)
    return (max(-1.0, low), min(1.0, high)) if paired.shares else (low, high)


def permutation_p(tasks: Sequence[PairedTask], seed: int = 0) -> float:
    """Two-sided p of no difference: how often swapping the runs, prompt by prompt, gives as large a one.

    If the two runs do not differ, either could have had the other's scores of a prompt (Fisher 1935, the
    sign-flip test). Few prompts that differ: all assignments; else random ones (Phipson and Smyth 2010).
    """
    differing = [np.flatnonzero(~_are_equal(task)) for task in tasks]
    number = sum(map(len, differing))
    observed = abs(np.mean([task.second.mean - task.first.mean for task in tasks])) - ROUNDING
    if number <= EXACT_UP_TO:
        swaps = np.array(list(product((0.0, 1.0), repeat=number))).reshape(2**number, number)
        parts = np.split(swaps, np.cumsum([len(d) for d in differing])[:-1], axis=1)
        values = [_swapped(t, d, part) for t, d, part in zip(tasks, differing, parts, strict=True)]
        return float(np.mean(np.abs(np.mean(values, axis=0)) >= observed))
    rng = np.random.default_rng(seed)
    values = [_random_swaps(task, rng) for task in tasks]
    larger = int((np.abs(np.mean(values, axis=0)) >= observed).sum())
    return (larger + 1) / (RESAMPLES + 1)


def _are_equal(task: PairedTask) -> NDArray[np.bool_]:
    return np.asarray(np.all(_changes(_columns(task)) == 0, axis=1))


def _swapped(task: PairedTask, differing: NDArray[np.int64], swaps: Floats) -> Floats:
    """The task's difference if these of its prompts are swapped (1) or not (0) [assignments]."""
    change = _changes(_columns(task)[differing])
    return _difference_of(_columns(task).sum(axis=0) + swaps @ change)


def _random_swaps(task: PairedTask, rng: np.random.Generator) -> Floats:
    """The task's difference in random assignments; prompts with equal totals are counted together."""
    kinds, numbers = _kinds(task)
    if len(numbers) > MAX_KINDS:
        a, b = task.first, task.second
        return rng.normal(
            0, np.sqrt(((b.sums / b.sizes.sum() - a.sums / a.sizes.sum()) ** 2).sum()), RESAMPLES
        )
    whole, change = _columns(task).sum(axis=0), _changes(kinds)
    rows = max(1, CHUNK_SIZE // len(numbers))
    values = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        swapped = rng.binomial(numbers, 0.5, (min(rows, RESAMPLES - start), len(numbers)))
        values[start : start + rows] = _difference_of(whole + swapped.astype(float) @ change)
    return values


def _columns(task: PairedTask) -> Floats:
    return np.stack([task.first.sums, task.first.sizes, task.second.sums, task.second.sizes], axis=1)


def _changes(kinds: Floats) -> Floats:
    """What swapping the two runs' totals of a prompt adds to the sums of them all."""
    return kinds[:, [2, 3, 0, 1]] - kinds
