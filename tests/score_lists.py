"""Measures from nested lists of scores, for tests: by task, prompt and draw."""

from collections.abc import Sequence
from typing import Any

from sar_eval.measures import Measure, stratum
from sar_eval.stats import intervals
from sar_eval.stats.totals import bounds_of, totals_of


def measure(tasks: Sequence[Sequence[Sequence[float]]], name: str = "overall", **known: Any) -> Measure:
    """Tasks t0, t1 of prompts p0, p1, ..., each with the scores of its draws."""
    strata, first = [], 0
    for number, prompts in enumerate(tasks):
        rows = [
            (f"p{first + p}", index, float(score), 1.0)
            for p, scores in enumerate(prompts)
            for index, score in enumerate(scores)
        ]
        strata.append(stratum(rows, f"t{number}"))
        first += len(prompts)
    return Measure(name, strata, **known)


def clustered_interval(
    tasks: Sequence[Sequence[Sequence[float]]], seed: int = 0
) -> tuple[float, float, float]:
    """Of the mean over tasks."""
    found = measure(tasks)
    return intervals.clustered_interval(totals_of(found), bounds_of(found), seed)
