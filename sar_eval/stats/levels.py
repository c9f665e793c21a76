"""A measure at a checkpoint, by task and prompt: of one run, or pooled from several with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_eval.measures import Measure
from sar_eval.stats.pairing import Paired, PairedTask
from sar_eval.stats.totals import Totals, are_shares, prompt_totals


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Totals of the prompts by task, and the prompts' ids in the same order.

    Attributes:
        shares: whether all scores lie in [0, 1].
    """

    tasks: Mapping[str, Totals]
    prompts: Mapping[str, tuple[str, ...]]
    shares: bool

    @property
    def mean(self) -> float:
        """The unweighted mean of the tasks' means."""
        return float(np.mean([totals.mean for totals in self.tasks.values()]))


def level_of(runs: Sequence[Measure]) -> Level:
    """The measure at a checkpoint that was run one or more times: each run weighs the same.

    Raises:
        ValueError: the runs have scores of different prompts.
    """
    levels = [_level(measure) for measure in runs]
    check_prompts(levels)
    first = levels[0]
    tasks = {name: _sum([level.tasks[name] for level in levels]) for name in first.tasks}
    return Level(tasks, first.prompts, all(level.shares for level in levels))


def check_prompts(levels: Sequence[Level]) -> None:
    """Refuse levels that cannot be held against each other prompt by prompt.

    Raises:
        ValueError: they have scores of different prompts.
    """
    if any(level.prompts != levels[0].prompts for level in levels):
        raise ValueError("not the same prompts have scores")


def _level(measure: Measure) -> Level:
    tasks, prompts = {}, {}
    for stratum in (stratum for stratum in measure.strata if len(stratum.prompts)):
        totals = prompt_totals(stratum, measure.combine)
        order = np.array(sorted(range(len(totals)), key=stratum.prompts.__getitem__))
        tasks[stratum.task] = Totals(totals.sums[order], totals.sizes[order])
        prompts[stratum.task] = tuple(stratum.prompts[position] for position in order)
    return Level(tasks, prompts, are_shares(measure))


def _sum(totals: Sequence[Totals]) -> Totals:
    return Totals(np.sum([t.sums for t in totals], axis=0), np.sum([t.sizes for t in totals], axis=0))


def pair_levels(name: str, scale: int, before: Level, after: Level) -> Paired:
    """Two checkpoints, paired by prompt."""
    tasks = [PairedTask(task, before.tasks[task], after.tasks[task], 0, None) for task in before.tasks]
    return Paired(name, scale, before.shares and after.shares, tuple(tasks), 0)


def prompt_scores(levels: Sequence[Level]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score of every prompt at every checkpoint [P, K], and the number of its task [P].

    The mean of a task's scores is the task's mean, also where prompts weigh differently: a score is then
    the task's mean and what the prompt moves it by (the ratio estimator's residual; Cochran 1977, ch. 6).
    """
    tasks = list(levels[0].tasks)
    scores = [np.stack([_scores(level.tasks[task]) for level in levels], axis=1) for task in tasks]
    return np.concatenate(scores), np.repeat(np.arange(len(tasks)), [len(task) for task in scores])


def _scores(totals: Totals) -> NDArray[np.float64]:
    mean, weight = totals.mean, totals.sizes.sum() / len(totals)
    scores: NDArray[np.float64] = mean + (totals.sums - mean * totals.sizes) / weight
    return scores
