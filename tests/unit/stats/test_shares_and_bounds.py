"""Strata that weigh differently, and scores with other bounds than 0 and 1, or with none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from sar_eval.errors import BadInput
from sar_eval.measures import Measure
from sar_eval.report.scores import score_groups
from sar_eval.stages.gate import Asked
from sar_eval.stages.sequential import _round
from sar_eval.stats import paired as paired_stats
from sar_eval.stats.change_points import find_change_points
from sar_eval.stats.differences import difference
from sar_eval.stats.intervals import metric_of
from sar_eval.stats.levels import level_of, pair_levels, prompt_scores
from sar_eval.stats.paired import standard_error, value_of
from sar_eval.stats.pairing import pair
from sar_eval.stats.sequential import Look, Rounds, decisions, looks
from sar_eval.storage.baselines import read_baseline, write_baseline
from tests.score_lists import measure
from tests.unit.storage.test_baselines import FACTS

SHARES = {"t0": 0.3, "t1": 0.1}
TASKS = [[[1.0], [0.0], [1.0]], [[0.0], [0.0], [1.0], [0.0]]]
RNG = np.random.default_rng(16)
RIGHT = (RNG.random((2, 30, 2)) < 0.7).astype(float)


def _numbers(found: Measure) -> tuple[float, float, float]:
    metric = metric_of(found)
    return metric.value or 0.0, metric.low or 0.0, metric.high or 0.0


def test_the_figure_weighs_its_strata_by_their_shares() -> None:
    assert metric_of(measure(TASKS, shares=SHARES)).value == pytest.approx(0.75 * 2 / 3 + 0.25 / 4)
    one = measure([TASKS[0], []], shares=SHARES)
    assert metric_of(one).value == pytest.approx(2 / 3)  # of the strata that have a row


def test_equal_shares_in_any_unit_change_no_digit() -> None:
    plain, both = (measure(RIGHT.tolist(), shares=s) for s in ({}, {"t0": 7.0, "t1": 7.0}))
    assert metric_of(plain) == metric_of(both)
    other = measure((1 - RIGHT).tolist())
    assert difference(pair(plain, other)) == difference(pair(both, replace(other, shares=both.shares)))


def test_a_stratum_of_nearly_all_the_share_decides_alone() -> None:
    """Interval, difference and power become those of that stratum's own measure."""
    scores = RIGHT.tolist(), (RNG.random((2, 30, 2)) < 0.5).astype(float).tolist()
    alone = [measure([s[0]]) for s in scores]
    weighted = [measure(s, shares={"t0": 1.0, "t1": 1e-9}) for s in scores]
    assert _numbers(weighted[0]) == pytest.approx(_numbers(alone[0]), abs=0.02)
    assert standard_error(replace(pair(*weighted), span=None)) == pytest.approx(
        standard_error(replace(pair(*alone), span=None)), rel=1e-6
    )
    found, expected = (difference(pair(*both)) for both in (weighted, alone))
    assert (found.first, found.second, found.value) == pytest.approx(
        (expected.first, expected.second, expected.value), rel=1e-6
    )
    assert found.p == pytest.approx(expected.p, abs=0.02)


def test_a_share_is_missing_or_no_number() -> None:
    for shares, words in (({"t0": 1.0}, "'t1'"), ({"t0": 0.0, "t1": 1.0}, "positive")):
        with pytest.raises(ValueError, match=words):
            measure(TASKS, shares=shares)
    with pytest.raises(ValueError, match="lower comes first"):
        measure(TASKS, bounds=(1.0, 0.0))


def test_history_and_its_change_points_weigh_tasks_by_their_shares() -> None:
    rng = np.random.default_rng(3)
    steps = [0.2, 0.2, 0.2, 0.8, 0.8, 0.8]
    runs = [
        measure([(rng.random((40, 1)) < s).tolist(), [[0.5]] * 40], shares={"t0": 3.0, "t1": 1.0})
        for s in steps
    ]
    levels = [level_of([run]) for run in runs]
    assert value_of(pair_levels("overall", 1, levels[0], levels[5])) == pytest.approx(
        levels[5].mean - levels[0].mean
    )
    (found,) = find_change_points(*prompt_scores(levels), shares=levels[0].shares)
    before, after = (np.mean([level.mean for level in part]) for part in (levels[:3], levels[3:]))
    assert (found.at, found.difference) == (3, pytest.approx(after - before))
    assert levels[0].mean == metric_of(runs[0]).value


@pytest.mark.parametrize("bounds", [(1.0, 5.0), (-1.0, 1.0)])
def test_other_bounds_give_the_interval_of_0_and_1_moved_there(bounds: tuple[float, float]) -> None:
    low, high = bounds
    moved = measure((low + (high - low) * RIGHT).tolist(), bounds=bounds)
    expected = [low + (high - low) * number for number in _numbers(measure(RIGHT.tolist()))]
    assert _numbers(moved) == pytest.approx(expected)
    perfect = measure([[[high]] * 20], bounds=bounds)
    assert _numbers(perfect)[1] < high  # all agree, and some doubt is left


def test_differences_of_other_bounds_are_those_of_0_and_1_times_their_span() -> None:
    others = (RNG.random((2, 30, 2)) < 0.5).astype(float)
    plain = difference(pair(measure(RIGHT.tolist()), measure(others.tolist())))
    moved = difference(pair(*(measure((1 + 4 * s).tolist(), bounds=(1.0, 5.0)) for s in (RIGHT, others))))
    assert [moved.value, moved.low, moved.high, moved.detectable] == pytest.approx(
        [4 * number for number in (plain.value, plain.low, plain.high, plain.detectable) if number]
    )
    assert (moved.p, moved.prompts_needed) == (plain.p, plain.prompts_needed)


def test_scores_that_are_not_within_their_bounds_are_taken_for_unbounded_ones() -> None:
    all_five = measure([[[5.0]] * 20])
    assert _numbers(all_five) == (5.0, 5.0, 5.0)


def test_an_unbounded_measure_has_students_interval_at_least() -> None:
    scores = [1.2, -0.4, 0.3, 2.0, -1.1]
    value, low, high = _numbers(measure([[[s] for s in scores]], bounds=None))
    spread = student.ppf(0.975, 4) * np.std(scores, ddof=1) / np.sqrt(5)
    assert value == pytest.approx(0.4)
    assert (value - low, high - value) == pytest.approx((spread, spread))
    metric = metric_of(measure([[[1.2]]], bounds=None))
    assert (metric.value, metric.low, metric.high) == (1.2, None, None)


def test_unbounded_scores_that_look_like_shares_are_not_corrected() -> None:
    scores = [[[0.2], [0.3], [0.25], [0.28]]]
    plain = [measure(scores, bounds=bounds) for bounds in ((0.0, 1.0), None)]
    assert _numbers(plain[1])[2] < _numbers(plain[0])[2]
    equal = difference(pair(plain[1], plain[1]))
    assert (equal.low, equal.high, equal.detectable) == (0.0, 0.0, None)


def test_a_tolerance_is_a_part_of_the_bounds_and_must_be_said_without_them() -> None:
    assert Asked().limit(measure(TASKS, scale=100)) == 1.0
    assert Asked().limit(measure(TASKS, bounds=(1.0, 5.0))) == pytest.approx(0.04)
    assert Asked(tolerance=0.2).limit(measure(TASKS, bounds=None)) == 0.2
    with pytest.raises(BadInput, match="--tolerance"):
        Asked().limit(measure(TASKS, bounds=None))


def test_scores_without_the_bounds_of_a_share_have_no_bar_and_no_say_in_the_axis() -> None:
    rows = [
        measure([[[v]] * 9], name, bounds=bounds)
        for name, v, bounds in (("a", 0.5, (0.0, 1.0)), ("b", -7.0, None), ("c", 4.0, (1.0, 5.0)))
    ]
    axis, groups = score_groups([metric_of(row) for row in rows])
    assert axis == 1.0
    assert [(row.value, row.bar) for row in groups[0][1]] == [
        ("0.500", 50.0),
        ("-7.000", None),
        ("4.000", None),
    ]


def test_a_baseline_keeps_shares_and_bounds(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    written = [measure(TASKS, "a", shares=SHARES), measure(TASKS, "b", bounds=(-1.0, 2.0))]
    written.append(measure(TASKS, "c", bounds=None))
    write_baseline(path, FACTS, written)
    _, read = read_baseline(path)
    assert [metric_of(m) for m in read] == [metric_of(m) for m in written]
    assert [(m.shares, m.bounds) for m in read] == [(m.shares, m.bounds) for m in written]


def test_sequential_bets_follow_the_shares() -> None:
    """The second task counts for a tenth: a loss there alone is within the tolerance."""
    tasks = [0, 1] * 400
    gains = np.where(np.arange(800) % 2 == 0, 0.0, -0.5)
    ends = list(range(100, 801, 100))
    equal, weighted = Rounds.of(tasks, ends), Rounds.of(tasks, ends, [0.9, 0.1])
    assert decisions(gains, equal, 0.1)[-1] == -1
    assert decisions(gains, weighted, 0.1)[-1] == 1
    look = looks(np.full(800, 0.5), 0.5 + gains, weighted, 0.1)[-1]
    assert (look.first, look.second) == pytest.approx((0.5, 0.45))
    assert look.low <= -0.05 <= look.high


@pytest.mark.slow
def test_bets_by_share_hold_their_error() -> None:
    """Tasks that gain and lose so that the weighted difference is 0: refuted in 5 % of suites at most."""
    rng, tasks = np.random.default_rng(0), np.arange(400) % 2
    rounds = Rounds.of(tasks.tolist(), list(range(40, 401, 40)), [3.0, 1.0])
    means = np.where(tasks == 0, 0.1, -0.3)
    suites = np.where(rng.random((1000, 400)) < (1 + means) / 2, 1.0, -1.0)
    found = decisions(suites, rounds, 0.0)
    assert (found[:, -1] != 0).mean() <= 0.1  # two sides of 5 % each


def test_a_look_at_grades_is_in_their_unit() -> None:
    grades = measure([[[1.0]]], bounds=(1.0, 5.0))
    look = Look(9, first=0.5, second=0.25, lower=-0.5, upper=0.1, low=-0.6, high=0.2, decision="open")
    found = _round(look, grades, images=2, draws=40)
    assert (found.baseline, found.figure, found.value) == (3.0, 2.0, -1.0)
    assert (found.lower, found.low, found.images) == (-2.0, pytest.approx(-2.4), 18)


@pytest.mark.slow
def test_intervals_of_few_unbounded_scores_hold_their_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight prompts of normal rewards: the percentile bootstrap alone would hold the mean in 90 %."""
    monkeypatch.setattr(paired_stats, "RESAMPLES", 400)
    rng = np.random.default_rng(0)
    limits = [_numbers(measure([rng.normal(0, 1, (8, 1)).tolist()], bounds=None)) for _ in range(500)]
    assert 0.93 <= np.mean([low <= 0 <= high for _, low, high in limits]) <= 0.98
