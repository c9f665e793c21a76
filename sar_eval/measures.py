"""What a benchmark's figures are means of: scores by draw, in the prompts and tasks that they belong to.

A fold gives measures; `sar_eval.stats` makes intervals, differences and gates of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sar_eval.protocols import scores
from sar_eval.types import Prompt, Verdict

Combine = Literal["sum", "mean", "max", "min"]
Bounds = tuple[float, float]
Row = tuple[str, int, float, float]  # prompt id, index of the draw, sum of its scores, their number


@dataclass(frozen=True, slots=True, eq=False)
class Stratum:
    """The scores of one task, one row for each draw; the R rows of its P prompts stand together.

    Attributes:
        task: its name ("" if the suite has none).
        prompts: ids [P].
        starts: first row of each prompt, and R at the end [P + 1].
        indices: of the draws within their prompt [R].
        sums: of each draw's scores [R].
        weights: how many scores each sum is of [R]: 1 for a score of the image, the number of questions
            where each question has one.
    """

    task: str
    prompts: Sequence[str]
    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    sums: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def rows_of(self) -> NDArray[np.int64]:
        """The number of rows of each prompt [P]."""
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """A figure's name and what it is a mean of.

    The figure is the mean over the strata of each one's mean, which is the sum of its prompts' scores
    divided by the sum of their weights.

    Attributes:
        name: `overall`, `task/counting`.
        strata: tasks, each of another name; those without a row do not count.
        scale: what the benchmark calls a perfect score: 1, or 100 for figures in points.
        combine: how draws become their prompt's score and weight. `sum`: both are summed, so that every
            score weighs the same. `mean`, `max`, `min`: of the draws' means, of weight 1.
        count: what to print as n instead of the sum of the weights.
        is_effect: the scores are differences that a change of the rules makes, or a spread of scores:
            neither bounded by 0 and 1, nor compared between runs.
        has_interval: False if the prompts are no sample of anything, so that an interval says nothing.
        shares: weight of each stratum in the figure by its task, in any unit: they are divided by the sum
            of those that have a row. Empty: all weigh the same.
        bounds: the least and the greatest score that a draw can have, before `scale`; None if any number
            is one. Intervals of bounded scores know how far the mean can be off, so that few prompts that
            all agree leave some doubt. Scores that are not within them are taken for unbounded ones.

    Raises:
        ValueError: a stratum has no share, or a share or the bounds are no such numbers.
    """

    name: str
    strata: Sequence[Stratum]
    scale: int = 1
    combine: Combine = "sum"
    count: int | None = None
    is_effect: bool = False
    has_interval: bool = True
    shares: Mapping[str, float] = field(default_factory=dict)
    bounds: Bounds | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.shares and (missing := [s.task for s in self.strata if s.task not in self.shares]):
            raise ValueError(f"measure {self.name!r} has no share for its stratum {missing[0]!r}")
        if not all(0 < share < math.inf for share in self.shares.values()):
            raise ValueError(f"measure {self.name!r} has a share that is no positive number")
        if self.bounds is not None and not -math.inf < self.bounds[0] < self.bounds[1] < math.inf:
            raise ValueError(f"measure {self.name!r} has bounds {self.bounds}: the lower comes first")

    @property
    def group(self) -> str:
        """`task` of `task/counting`, "" of `overall`."""
        return self.name.rpartition("/")[0]


def stratum(rows: Iterable[Row], task: str = "") -> Stratum:
    """A stratum of rows in which those of a prompt stand together."""
    ids: list[str] = []
    starts: list[int] = []
    values: list[tuple[int, float, float]] = []
    for prompt_id, of_prompt in groupby(rows, key=lambda row: row[0]):
        ids.append(prompt_id)
        starts.append(len(values))
        values += [row[1:] for row in of_prompt]
    indices, sums, weights = zip(*values, strict=True) if values else ((), (), ())
    return Stratum(
        task,
        ids,
        np.array([*starts, len(values)], np.int64),
        np.array(indices, np.int32),
        np.array(sums, np.float64),
        np.array(weights, np.float64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class DrawScores:
    """The scores of a run's judged draws, in the order of the suite and of the indices.

    Attributes:
        ids: of all prompts of the suite.
        prompts: position in `ids` of each draw's prompt [R].
        indices: of the draws [R].
        scores: [R].
    """

    ids: Sequence[str]
    prompts: NDArray[np.int64]
    indices: NDArray[np.int32]
    scores: NDArray[np.float64]

    def strata(self, labels: Sequence[str | None]) -> tuple[Stratum, ...]:
        """One stratum for each label of prompts, in the order of their first prompt with a score.

        Args:
            labels: of every prompt of the suite; those of None are left out.
        """
        codes: dict[str | None, int] = {}
        for position in np.unique(self.prompts).tolist():
            codes.setdefault(labels[position], len(codes))
        by_row = np.array([codes.get(label, 0) for label in labels], np.int64)[self.prompts]
        order = np.argsort(by_row, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(by_row[order])) + 1) if len(order) else []
        return tuple(
            self._stratum(label, rows)
            for label, rows in zip(codes, groups, strict=True)
            if label is not None
        )

    def _stratum(self, task: str, rows: NDArray[np.int64]) -> Stratum:
        prompts = self.prompts[rows]
        starts = np.flatnonzero(np.diff(prompts, prepend=-1))
        ids = [self.ids[position] for position in prompts[starts].tolist()]
        ends = np.append(starts, len(rows))
        return Stratum(task, ids, ends, self.indices[rows], self.scores[rows], np.ones(len(rows)))


def draw_scores(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> DrawScores:
    """The scores of the judged draws; a stored run gives them without reading any evidence."""
    return collect_scores(prompts, scores(verdicts))


def collect_scores(prompts: Sequence[Prompt], pairs: Iterable[tuple[str, float | None]]) -> DrawScores:
    """The scores of draws given by key, in any order; draws of no prompt of the suite are left out."""
    ids = [prompt.id for prompt in prompts]
    position = {prompt_id: number for number, prompt_id in enumerate(ids)}
    at, indices, values = [], [], []
    for key, score in pairs:
        prompt_id, _, index = key.rpartition("/")
        if score is not None and prompt_id in position:
            at.append(position[prompt_id])
            indices.append(int(index))
            values.append(score)
    by_prompt, by_index = np.array(at, np.int64), np.array(indices, np.int32)
    order = np.lexsort((by_index, by_prompt))
    return DrawScores(ids, by_prompt[order], by_index[order], np.array(values, np.float64)[order])


def scores_by_task(prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Stratum, ...]:
    """The scores of the judged draws, one stratum for each tag of prompts, in suite order."""
    return draw_scores(prompts, verdicts).strata([prompt.tag for prompt in prompts])


def merge(strata: Sequence[Stratum], task: str = "") -> Stratum:
    """One stratum with the rows of several, in their order."""
    sizes = np.concatenate([np.zeros(0, np.int64), *(s.rows_of for s in strata)])
    return Stratum(
        task,
        [prompt_id for s in strata for prompt_id in s.prompts],
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([np.zeros(0, np.int32), *(s.indices for s in strata)]),
        np.concatenate([np.zeros(0), *(s.sums for s in strata)]),
        np.concatenate([np.zeros(0), *(s.weights for s in strata)]),
    )
