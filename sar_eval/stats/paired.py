"""Interval and permutation test of the difference of two runs on the same prompts.

docs/comparing.md explains each number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sar_eval.stats.pairing import Paired, PairedTask
from sar_eval.stats.totals import Totals, over_tasks, relative

RESAMPLES = 10_000
CHUNK_SIZE = 200_000  # random numbers held at once
COUNTING_COST = 8  # drawing a count takes as long as drawing so many prompts one by one
EXACT_UP_TO = 13  # prompts that differ: all 2^13 assignments are fewer than the random ones
MAX_KINDS = 20_000  # of prompts: the mean of more is drawn from the normal distribution that it tends to
ROUNDING = 1e-10  # of the largest score, by which equal differences may differ
OWN_VARIANCE = 3  # prompts from which on a task says how much its prompts vary
Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]


def value_of(paired: Paired) -> float:
    """Second less first: the mean over the tasks, each by its share, of the differences of their means."""
    return _over(paired.tasks, [task.second.mean - task.first.mean for task in paired.tasks]).item()


def _over(tasks: Sequence[PairedTask], values: Sequence[float] | Sequence[Floats]) -> Floats:
    """The mean over tasks of a number or an array of each, by their shares."""
    return over_tasks(values, [task.share for task in tasks])


def standard_error(paired: Paired) -> float:
    """Of the difference, clustered by prompt, within tasks (ratio estimator; Cochran 1977, ch. 6).

    For bounded scores, half a prompt is added to those that the second wins, loses, and to either kind of
    tie, as Agresti and Min (2005) do, so that few prompts that all agree leave some doubt. A prompt won or
    lost is as large as those seen are on average; if all are tied, it is the largest that can be.
    """
    variance = sum(variance for variance, _ in _variances(paired.tasks)) / len(paired.tasks) ** 2
    if paired.span is None:
        return float(np.sqrt(variance))
    n, gains = paired.prompts, np.concatenate([task.gains for task in paired.tasks])
    differing = gains[np.abs(gains) > rounding_of(paired.tasks)]
    typical = float((differing**2).mean()) if len(differing) else paired.span**2
    return float(np.sqrt(variance * n**2 + typical) / (n + 2))


def degrees_of_freedom(paired: Paired) -> float:
    """Of the standard error, at least 1 (Satterthwaite 1946; Cochran 1977, eq. 5.16).

    Prompts less tasks where all tasks are of one size and spread; hardly more than those of a small task
    whose few prompts make most of the error.
    """
    found = [(variance, spare) for variance, spare in _variances(paired.tasks) if variance > 0]
    if not found:
        return max(1.0, float(paired.prompts - len(paired.tasks)))
    largest = max(variance for variance, _ in found)  # squares of ratios neither overflow nor vanish
    ratios = [(variance / largest, spare) for variance, spare in found]
    return max(1.0, sum(r for r, _ in ratios) ** 2 / sum(r**2 / spare for r, spare in ratios))


def rounding_of(tasks: Sequence[PairedTask]) -> float:
    """By how much differences that are equal may differ: a small part of the largest score."""
    means = [np.abs(run.sums / run.sizes).max() for task in tasks for run in (task.first, task.second)]
    return ROUNDING * float(max(means))


def _variances(tasks: Sequence[PairedTask]) -> list[tuple[float, int]]:
    """Of the difference of each task's means by its relative share, with its degrees of freedom.

    One or two prompts say too little of how they vary. In tasks of so few, a prompt is taken to vary as all
    prompts do about the mean of their tasks, and those alone in theirs about their own mean.
    """
    sizes = [len(task.first) for task in tasks]
    own = [_task_variance(task) if n > 1 else 0.0 for task, n in zip(tasks, sizes, strict=True)]
    weights = [share**2 for share in relative([task.share for task in tasks])]
    known = [each for each in zip(own, sizes, weights, strict=True) if each[1] >= OWN_VARIANCE]
    found = [(weight * variance, n - 1) for variance, n, weight in known]
    few = [(n, weight) for n, weight in zip(sizes, weights, strict=True) if n < OWN_VARIANCE]
    alone = [task.second.mean - task.first.mean for task in tasks if len(task.first) == 1]
    spare = sum(sizes) - len(sizes) + max(0, len(alone) - 1)
    if few and spare:
        squares = sum(variance * n * (n - 1) for variance, n in zip(own, sizes, strict=True))
        squares += len(alone) * float(np.var(alone)) if alone else 0.0
        found.append((squares / spare * sum(weight / n for n, weight in few), spare))
    return found


def _task_variance(task: PairedTask) -> float:
    """Of the difference of the means of a task of at least two prompts."""
    n = len(task.first)
    return float(n / (n - 1) * (_contributions(task) ** 2).sum())


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
    return _over(paired.tasks, [_resample(task, rng) for task in paired.tasks])


def _resample(task: PairedTask, rng: np.random.Generator) -> Floats:
    sample = _Sample.of(task)
    if len(sample.kinds) > MAX_KINDS:
        return rng.normal(task.second.mean - task.first.mean, np.sqrt(_task_variance(task)), RESAMPLES)
    return sample.difference(_resampled_sums(sample, rng))


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """The numbers of each prompt whose sums give the task's difference.

    Attributes:
        columns: gains where all prompts weigh the same, else score and weight in the first and in the
            second [P, 1 or 4].
        kinds, numbers: the different rows, and how many prompts have each.
    """

    columns: Floats
    kinds: Floats
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, task: PairedTask) -> _Sample:
        return cls.of_columns(task.gains[:, None] if task.is_balanced else _totals(task))

    @classmethod
    def of_columns(cls, columns: Floats) -> _Sample:
        return cls(columns, *np.unique(columns, axis=0, return_counts=True))

    @property
    def is_counted(self) -> bool:
        """Whether equal prompts are drawn together, as that is faster."""
        return len(self.kinds) < len(self.columns) // COUNTING_COST

    def difference(self, sums: Floats) -> Floats:
        """The task's difference from sums over as many prompts [..., 1 or 4]."""
        if sums.shape[-1] == 1:
            return np.asarray(sums[..., 0] / len(self.columns))
        return np.asarray(sums[..., 2] / sums[..., 3] - sums[..., 0] / sums[..., 1])

    def turned(self) -> _Sample:
        """With the two runs swapped where the second lost, so that it wins everywhere."""
        if self.columns.shape[1] == 1:
            return self.of_columns(np.abs(self.columns))
        lost = self.columns[:, 2] / self.columns[:, 3] < self.columns[:, 0] / self.columns[:, 1]
        return self.of_columns(np.where(lost[:, None], self.columns[:, [2, 3, 0, 1]], self.columns))


def _changes(columns: Floats) -> Floats:
    """What swapping the two runs adds to a prompt's numbers."""
    return -2 * columns if columns.shape[1] == 1 else columns[:, [2, 3, 0, 1]] - columns


def _totals(task: PairedTask) -> Floats:
    return np.stack([task.first.sums, task.first.sizes, task.second.sums, task.second.sizes], axis=1)


def _resampled_sums(sample: _Sample, rng: np.random.Generator) -> Floats:
    """Sums over resampled prompts [RESAMPLES, columns], in chunks that fit into a cache.

    Of four images right or wrong nine kinds of gains are different, so that few numbers are drawn.
    """
    columns, n = sample.columns, len(sample.columns)
    sums = np.empty((RESAMPLES, columns.shape[1]))
    for rows in _chunks(len(sample.kinds) if sample.is_counted else n):
        size = rows.stop - rows.start
        if sample.is_counted:
            sums[rows] = rng.multinomial(n, sample.numbers / n, size).astype(float) @ sample.kinds
        else:
            drawn = rng.integers(0, n, (size, n), np.int32)
            sums[rows] = np.stack([column[drawn].sum(axis=1) for column in columns.T], axis=1)
    return sums


def _swapped_sums(sample: _Sample, rng: np.random.Generator) -> Floats:
    """Sums if each prompt's runs are swapped or not, at random [RESAMPLES, columns]."""
    counted = sample.is_counted
    changes = _changes(sample.kinds if counted else sample.columns)
    sums = np.empty((RESAMPLES, changes.shape[1]))
    for rows in _chunks(len(changes)):
        shape = (rows.stop - rows.start, len(changes))
        swapped = rng.binomial(sample.numbers, 0.5, shape) if counted else _random_bits(shape, rng)
        sums[rows] = swapped.astype(float) @ changes
    return np.asarray(sample.columns.sum(axis=0) + sums)


def _random_bits(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    number = shape[0] * shape[1]
    bits = np.unpackbits(np.frombuffer(rng.bytes(-(-number // 8)), np.uint8), count=number)
    return bits.reshape(shape)


def _chunks(width: int) -> Iterator[slice]:
    """Slices of the resamples, each of at most `CHUNK_SIZE` random numbers."""
    rows = max(1, CHUNK_SIZE // width)
    return (slice(start, min(start + rows, RESAMPLES)) for start in range(0, RESAMPLES, rows))


def interval(paired: Paired, resampled: Floats, level: float) -> Interval:
    """The interval of the difference at this level, in the unit of the scores.

    It reaches from the lower of the lower limits of two intervals to the higher of the upper ones: that of
    the percentile bootstrap, which follows skewness, and Student's with the clustered standard error, which
    is right for few prompts (for bounded scores after Agresti and Min, see `standard_error`).

    Returns:
        (low, high); None and None for unbounded scores of too few prompts to know their spread.
    """
    value, n, span = value_of(paired), paired.prompts, paired.span
    if span is None and n < 2:
        return None, None
    tail = (1 - level) / 2
    spread = float(stdtrit(degrees_of_freedom(paired), 1 - tail)) * standard_error(paired)
    centre = value if span is None else value * n / (n + 2)
    low, high = np.percentile(resampled, [100 * tail, 100 * (1 - tail)]).tolist()
    low, high = min(low, value, centre - spread), max(high, value, centre + spread)
    return (low, high) if span is None else (max(-span, low), min(span, high))


def permutation_p(tasks: Sequence[PairedTask], seed: int = 0) -> float:
    """Two-sided p of no difference: how often swapping the runs, prompt by prompt, gives as large a one.

    If the two runs do not differ, either could have had the other's scores of a prompt (Fisher 1935, the
    sign-flip test). Few prompts that differ: all assignments; else random ones (Phipson and Smyth 2010).
    It is the same whichever run is named first.
    """
    found = _over(tasks, [task.second.mean - task.first.mean for task in tasks]).item()
    observed = abs(found) - rounding_of(tasks)
    samples = [_Sample.of(task) for task in tasks]
    differing = [np.flatnonzero(np.any(_changes(sample.columns) != 0, axis=1)) for sample in samples]
    if sum(map(len, differing)) <= EXACT_UP_TO:
        values = _all_swaps(samples, differing)
        return float(np.mean(np.abs(_over(tasks, values)) >= observed))
    rng = np.random.default_rng(seed)
    values = [_random_swaps(task, sample, rng) for task, sample in zip(tasks, samples, strict=True)]
    larger = int((np.abs(_over(tasks, values)) >= observed).sum())
    return (larger + 1) / (RESAMPLES + 1)


def _all_swaps(samples: Sequence[_Sample], differing: Sequence[NDArray[np.int64]]) -> list[Floats]:
    """Each task's difference in every assignment of the differing prompts of all tasks."""
    number = sum(map(len, differing))
    swaps = np.array(list(product((0.0, 1.0), repeat=number))).reshape(2**number, number)
    parts = np.split(swaps, np.cumsum([len(d) for d in differing])[:-1], axis=1)
    return [
        sample.difference(sample.columns.sum(axis=0) + part @ _changes(sample.columns[prompts]))
        for sample, prompts, part in zip(samples, differing, parts, strict=True)
    ]


def _random_swaps(task: PairedTask, sample: _Sample, rng: np.random.Generator) -> Floats:
    """The task's difference in random assignments."""
    if len(sample.kinds) > MAX_KINDS:
        gains = task.second.sums / task.second.sizes.sum() - task.first.sums / task.first.sizes.sum()
        return rng.normal(0, np.sqrt((gains**2).sum()), RESAMPLES)
    return sample.difference(_swapped_sums(sample.turned(), rng))
