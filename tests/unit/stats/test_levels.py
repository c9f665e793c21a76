"""A measure at a checkpoint: by prompt, pooled over runs, with the means of the measure itself."""

import numpy as np
import pytest

from sar_eval.measures import Measure, stratum
from sar_eval.stats.intervals import mean_of
from sar_eval.stats.levels import check_prompts, level_of, pair_levels, prompt_scores
from sar_eval.stats.paired import value_of
from sar_eval.stats.totals import totals_of

A = [("p1", 0, 2.0, 3.0), ("p1", 1, 1.0, 3.0), ("p2", 0, 0.0, 5.0)]
B = [("p2", 0, 4.0, 5.0), ("p1", 0, 1.0, 3.0), ("p1", 1, 0.0, 3.0)]
OTHER = [("q1", 0, 1.0, 1.0), ("q2", 0, 0.0, 1.0)]


def _measure(rows: list[tuple[str, int, float, float]], combine="sum") -> Measure:
    return Measure(
        "overall", [stratum(rows, "first"), stratum(OTHER, "second"), stratum([])], combine=combine
    )


@pytest.mark.parametrize("combine", ["sum", "mean", "max"])
def test_scores_of_prompts_have_the_measures_means(combine: str) -> None:
    """Also where prompts have different numbers of questions and stand in another order."""
    measures = [_measure(rows, combine) for rows in (A, B)]
    levels = [level_of([measure]) for measure in measures]
    means = [mean_of(totals_of(measure)) for measure in measures]
    scores, tasks = prompt_scores(levels)
    by_task = [scores[tasks == task].mean(axis=0) for task in (0, 1)]
    assert np.mean(by_task, axis=0) == pytest.approx(means)
    assert [level.mean for level in levels] == pytest.approx(means)
    assert value_of(pair_levels("overall", 1, *levels)) == pytest.approx(means[1] - means[0])


def test_runs_of_a_checkpoint_weigh_the_same() -> None:
    alone = [level_of([_measure(rows)]).mean for rows in (A, B)]
    assert level_of([_measure(A), _measure(B)]).mean == pytest.approx(np.mean(alone))


def test_other_prompts_are_no_level_to_compare_with() -> None:
    with pytest.raises(ValueError, match="not the same prompts"):
        level_of([_measure(A), _measure(A[:2])])
    with pytest.raises(ValueError, match="not the same prompts"):
        check_prompts([level_of([_measure(A)]), level_of([_measure(A[:2])])])
