"""A measure at a checkpoint, by task and prompt: of one run, or pooled from several with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sar_eval.measures import Measure
from sar_eval.stats.pairing import Paired, PairedTask
from sar_eval.stats.totals import Totals, mean_of, prompt_totals, span_of


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Totals of the prompts by task, and the prompts' ids in the same order.

    Attributes:
        span: the largest difference that scores can have; None if any can be.
    """

    tasks: Mapping[str, Totals]
    prompts: Mapping[str, tuple[str, ...]]
    span: float | None

    @property
    def mean(self) -> float:
        """The mean of the tasks' means, each by its share."""
        return mean_of(list(self.tasks.values()))

    @property
    def shares(self) -> list[float]:
        """Of the tasks in the figure."""
        return [totals.share for totals in self.tasks.values()]


def level_of(runs: Sequence[Measure]) -> Level:
    """The measure at a checkpoint that was run one or more times: each run weighs the same.

    Raises:
        ValueError: the runs have scores of different prompts.
    """
    levels = [_level(measure) for measure in runs]
    check_prompts(levels)
    first = levels[0]
    tasks = {name: _sum([level.tasks[name] for level in levels]) for name in first.tasks}
    return Level(tasks, first.prompts, span_of(*runs))


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
        totals = prompt_totals(stratum, measure.combine, measure.shares.get(stratum.task, 1.0))
        order = np.array(sorted(range(len(totals)), key=stratum.prompts.__getitem__))
        tasks[stratum.task] = Totals(totals.sums[order], totals.sizes[order], totals.share)
        prompts[stratum.task] = tuple(stratum.prompts[position] for position in order)
    return Level(tasks, prompts, span_of(measure))


def _sum(totals: Sequence[Totals]) -> Totals:
    sums, sizes = (np.sum([getattr(t, name) for t in totals], axis=0) for name in ("sums", "sizes"))
    return Totals(sums, sizes, totals[0].share)


def pair_levels(name: str, scale: int, before: Level, after: Level) -> Paired:
    """Two checkpoints, paired by prompt."""
    tasks = [PairedTask(task, before.tasks[task], after.tasks[task], 0, None) for task in before.tasks]
    span = None if before.span is None or after.span is None else max(before.span, after.span)
    return Paired(name, scale, span, tuple(tasks), 0)


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
