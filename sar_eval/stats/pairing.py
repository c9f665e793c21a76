"""Join two runs' scores draw by draw, and sum them up by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_eval.measures import Combine, Measure, Stratum
from sar_eval.stats.totals import Totals, prompt_totals, span_of

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PairedTask:
    """The totals of a task's prompts that both runs have.

    Attributes:
        first, second: totals of the same prompts [P].
        draws: of all of them, in both.
        noise: the variance of the difference of the task's means that is noise of draws, which more images
            of each prompt would remove; None where a prompt's score is no mean of its draws', or none has
            two.
    """

    task: str
    first: Totals
    second: Totals
    draws: int
    noise: float | None

    @property
    def share(self) -> float:
        """Weight of the task in the figure."""
        return self.first.share

    @property
    def gains(self) -> NDArray[np.float64]:
        """Second less first of each prompt's mean score [P]."""
        return self.second.sums / self.second.sizes - self.first.sums / self.first.sizes

    @property
    def is_balanced(self) -> bool:
        """Whether all prompts weigh the same in both, so that the difference is the mean of the gains."""
        sizes = self.first.sizes
        return bool((sizes == sizes[:1]).all() and np.array_equal(sizes, self.second.sizes))


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """One measure of two runs, over the draws that both have.

    Attributes:
        name, scale: the measure's.
        span: the largest difference that scores can have, 1 for those in [0, 1]; None if any can be.
        tasks: those with a prompt in both.
        unpaired: draws with a score in one run alone.
    """

    name: str
    scale: int
    span: float | None
    tasks: tuple[PairedTask, ...]
    unpaired: int

    @property
    def prompts(self) -> int:
        """In both."""
        return sum(len(task.first) for task in self.tasks)

    @property
    def draws(self) -> int:
        """In both."""
        return sum(task.draws for task in self.tasks)


def pair(first: Measure, second: Measure) -> Paired:
    """Join two runs' scores by task, prompt and index of the draw."""
    others = {stratum.task: stratum for stratum in second.strata}
    joined = []
    for stratum in first.strata:
        if stratum.task in others:
            a, b = join(stratum, others[stratum.task])
            if len(a.indices):
                joined.append(_paired_task(a, b, first.combine, first.shares.get(stratum.task, 1.0)))
    rows = sum(len(s.indices) for m in (first, second) for s in m.strata)
    paired = sum(task.draws for task in joined)
    return Paired(first.name, first.scale, span_of(first, second), tuple(joined), rows - 2 * paired)


def join(first: Stratum, second: Stratum) -> tuple[Stratum, Stratum]:
    """The rows that both have, in the order of the first."""
    if _same_rows(first, second):
        return first, second
    position = {prompt_id: number for number, prompt_id in enumerate(first.prompts)}
    at = np.array([position.get(prompt_id, -1) for prompt_id in second.prompts], np.int64)
    width = 1 + int(max(first.indices.max(initial=0), second.indices.max(initial=0)))
    keys = _prompt_of_rows(first) * width + first.indices
    other_prompts = at[_prompt_of_rows(second)] if len(at) else np.zeros(0, np.int64)
    other = np.where(other_prompts < 0, -1 - np.arange(len(other_prompts)), 0)
    other = np.where(other_prompts < 0, other, other_prompts * width + second.indices)
    _, rows, other_rows = np.intersect1d(keys, other, assume_unique=True, return_indices=True)
    return _take(first, rows), _take(second, other_rows)


def _same_rows(first: Stratum, second: Stratum) -> bool:
    return (
        np.array_equal(first.starts, second.starts)
        and np.array_equal(first.indices, second.indices)
        and list(first.prompts) == list(second.prompts)
    )


def _prompt_of_rows(stratum: Stratum) -> Rows:
    """The position of each row's prompt."""
    return np.repeat(np.arange(len(stratum.prompts)), stratum.rows_of)


def _take(stratum: Stratum, rows: Rows) -> Stratum:
    """These rows; those of a prompt must stand together."""
    prompts = _prompt_of_rows(stratum)[rows]
    starts = np.flatnonzero(np.diff(prompts, prepend=-1))
    return Stratum(
        stratum.task,
        [stratum.prompts[position] for position in prompts[starts].tolist()],
        np.append(starts, len(rows)),
        stratum.indices[rows],
        stratum.sums[rows],
        stratum.weights[rows],
    )


def _paired_task(first: Stratum, second: Stratum, combine: Combine, share: float) -> PairedTask:
    totals = prompt_totals(first, combine, share), prompt_totals(second, combine, share)
    noise = _noise(first, second, combine) if combine in ("sum", "mean") else None
    return PairedTask(first.task, *totals, len(first.indices), noise)


def _noise(first: Stratum, second: Stratum, combine: Combine) -> float | None:
    """From the spread of draws about their prompt's mean; prompts of one draw are like the others."""
    rows = np.repeat(first.rows_of, first.rows_of)
    known = rows > 1
    if not known.any():
        return None
    weights = first.weights if combine == "sum" else 1 / rows
    weights = weights / weights.sum()
    gains = second.sums / second.weights - first.sums / first.weights
    means = np.add.reduceat(gains, first.starts[:-1]) / first.rows_of
    rest = (gains - np.repeat(means, first.rows_of)) * weights
    noise = (rest[known] ** 2 * rows[known] / (rows[known] - 1)).sum()
    return float(noise * (weights**2).sum() / (weights[known] ** 2).sum())


def missing_keys(first: Sequence[Stratum], second: Sequence[Stratum]) -> tuple[set[str], set[str]]:
    """Keys of the draws that the first has and the second lacks, and the other way round."""
    if len(first) == len(second) and all(map(_same_rows, first, second)):
        return set(), set()  # as of any two whole runs: no key of a million need be made
    a, b = _keys(first), _keys(second)
    return a - b, b - a


def _keys(strata: Sequence[Stratum]) -> set[str]:
    return {
        f"{s.prompts[prompt]}/{index}"
        for s in strata
        for prompt, index in zip(_prompt_of_rows(s).tolist(), s.indices.tolist(), strict=True)
    }
