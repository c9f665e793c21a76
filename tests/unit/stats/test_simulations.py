"""Simulated comparisons whose truth is known: errors, coverage and power are what they are said to be.

Suites like GenEval's: 553 prompts in six tasks, four images, whose scores correlate within prompts.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from sar_eval.comparisons import Difference
from sar_eval.stats import paired as paired_stats
from sar_eval.stats.differences import difference
from sar_eval.stats.pairing import Paired, PairedTask
from sar_eval.stats.totals import Totals

pytestmark = pytest.mark.slow
SIZES = (80, 99, 80, 94, 100, 100)
IMAGES = 4
SUITES = 1200  # the rate of an event of 5 % is then known to 0.6 points (one standard error)
Scores = np.ndarray  # [prompts, images]
Task = Callable[[np.random.Generator, int], tuple[Scores, Scores]]  # both runs' scores of so many prompts


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_stats, "RESAMPLES", 400)


def _differences(
    task: Task, span: float | None = 1.0, suites: int = SUITES, sizes: Sequence[int] = SIZES
) -> Iterator[Difference]:
    rng = np.random.default_rng(0)
    for suite in range(suites):
        tasks = tuple(_paired(*task(rng, n)) for n in sizes)
        yield difference(Paired("overall", 1, span, tasks, 0), seed=suite)


def _paired(first: Scores, second: Scores) -> PairedTask:
    gains = second - first
    within = float(((gains - gains.mean(axis=1, keepdims=True)) ** 2).sum())
    n, images = first.shape
    totals = [Totals(scores.sum(axis=1), np.full(n, float(images))) for scores in (first, second)]
    return PairedTask("", *totals, n * images, within / (n * images - n) / (n * images))


def _right_or_wrong(share: float, correlation: float, gain: float = 0.0) -> Task:
    """Runs that share how hard a prompt is for half of the prompts; the second is better by `gain`."""

    def rates(rng: np.random.Generator, n: int) -> np.ndarray:
        if correlation == 0:
            return np.full(n, share)
        k = (1 - correlation) / correlation
        return rng.beta(share * k, (1 - share) * k, n)

    def task(rng: np.random.Generator, n: int) -> tuple[Scores, Scores]:
        first = rates(rng, n)
        second = np.where(rng.random(n) < 0.5, first, rates(rng, n))
        # Moves every rate towards 1 (or 0), so that the mean gain is exact and none leaves [0, 1].
        second = second + gain / (1 - share) * (1 - second) if gain > 0 else second * (1 + gain / share)
        drawn = [(rng.random((n, IMAGES)) < r[:, None]).astype(float) for r in (first, second)]
        return drawn[0], drawn[1]

    return task


CASES = [
    (0.05, 0.0),
    (0.05, 0.8),
    (0.3, 0.4),
    (0.6, 0.0),
    (0.6, 0.8),
    (0.97, 0.0),
    (0.97, 0.4),
    (0.97, 0.8),
]


@pytest.mark.parametrize(("share", "correlation"), CASES)
def test_equal_runs_are_told_apart_in_5_percent_and_intervals_cover(
    share: float, correlation: float
) -> None:
    found = list(_differences(_right_or_wrong(share, correlation)))
    assert 0.03 <= np.mean([bool(d.winner) for d in found]) <= 0.07
    assert 0.92 <= np.mean([d.low <= 0 <= d.high for d in found]) <= 0.98
    # A gate at the boundary: passes wrongly where its one-sided bound lies above, and the other way.
    assert 0.03 <= np.mean([d.lower > 0 for d in found]) <= 0.07
    assert 0.03 <= np.mean([d.upper < 0 for d in found]) <= 0.07


@pytest.mark.parametrize("tolerance", [0.01, 0.05])
def test_a_run_that_is_worse_by_the_tolerance_passes_in_5_percent(tolerance: float) -> None:
    found = list(_differences(_right_or_wrong(0.6, 0.4, -tolerance)))
    assert 0.03 <= np.mean([d.lower > -tolerance for d in found]) <= 0.07
    assert 0.03 <= np.mean([d.upper < -tolerance for d in found]) <= 0.07
    assert 0.92 <= np.mean([d.low <= -tolerance <= d.high for d in found]) <= 0.98


@pytest.mark.parametrize(("share", "correlation"), [(0.3, 0.4), (0.6, 0.0), (0.9, 0.4)])
def test_the_planned_difference_is_found_in_80_percent(share: float, correlation: float) -> None:
    planned = float(
        np.median([d.detectable for d in _differences(_right_or_wrong(share, correlation), suites=50)])
    )
    found = _differences(_right_or_wrong(share, correlation, planned), suites=1000)
    assert 0.75 <= np.mean([d.winner == "second" for d in found]) <= 0.85


def _dpg(rng: np.random.Generator, n: int) -> tuple[Scores, Scores]:
    """Shares of 14 questions answered yes; prompts differ in how hard they are."""
    rates = rng.beta(8, 2, n)
    drawn = [
        rng.binomial(14, np.clip(rates + rng.normal(0, 0.05, n), 0, 1)[:, None], (n, IMAGES)) for _ in "AB"
    ]
    return drawn[0] / 14, drawn[1] / 14


def _unbounded(rng: np.random.Generator, n: int) -> tuple[Scores, Scores]:
    """A reward with a long tail."""
    hard = rng.normal(0, 1, (n, 1))
    drawn = [hard + rng.normal(0, 0.5, (n, 1)) + rng.exponential(1, (n, IMAGES)) for _ in "AB"]
    return drawn[0], drawn[1]


@pytest.mark.parametrize(("task", "span"), [(_dpg, 1.0), (_unbounded, None)])
def test_dpg_and_unbounded_rewards(task: Task, span: float | None) -> None:
    found = list(_differences(task, span))
    assert 0.03 <= np.mean([bool(d.winner) for d in found]) <= 0.07
    assert 0.92 <= np.mean([d.low <= 0 <= d.high for d in found]) <= 0.98
    assert 0.03 <= np.mean([d.lower > 0 for d in found]) <= 0.07


def _normal(rng: np.random.Generator, n: int) -> tuple[Scores, Scores]:
    drawn = rng.normal(0, 1, (2, n, IMAGES))
    return drawn[0], drawn[1]


@pytest.mark.parametrize("sizes", [(1, 100, 100), (1, 1, 1, 50), (2, 100, 100), (3, 100, 100), (1,) * 20])
@pytest.mark.parametrize(("task", "span"), [(_right_or_wrong(0.6, 0.4), 1.0), (_normal, None)])
def test_a_task_of_very_few_prompts_makes_no_false_certainty(
    task: Task, span: float | None, sizes: Sequence[int]
) -> None:
    """The other tasks know their means well; the interval must know that this one does not."""
    found = list(_differences(task, span, 600, sizes))
    assert np.mean([bool(d.winner) for d in found]) <= 0.07
    assert np.mean([d.low <= 0 <= d.high for d in found]) >= 0.90  # Satterthwaite's are rough for 3 prompts
    assert np.mean([d.lower > 0 for d in found]) <= 0.08  # two standard errors above 6 %
    assert np.mean([d.upper < 0 for d in found]) <= 0.08
