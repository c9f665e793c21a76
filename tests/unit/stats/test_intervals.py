"""Confidence intervals: nominal coverage, clustered by prompt."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sar_eval.stats import intervals
from sar_eval.stats.intervals import _effective_sample_size, wilson_interval
from sar_eval.stats.totals import totals_of
from tests.score_lists import clustered_interval, measure


def test_the_value_is_the_mean_of_the_tasks() -> None:
    tasks = [[[1, 1], [0, 0]], [[1, 0], [1, 0], [1, 0], [1, 1]]]
    value, low, high = clustered_interval(tasks)
    assert value == pytest.approx((0.5 + 0.625) / 2)
    assert low < value < high


def test_images_that_agree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    shares = rng.random(100) < 0.6
    agreeing = [[float(s)] * 4 for s in shares]
    independent = (rng.random((100, 4)) < 0.6).astype(float).tolist()
    _, low, high = clustered_interval([agreeing])
    _, low_i, high_i = clustered_interval([independent])
    assert 1.5 < (high - low) / (high_i - low_i) < 2.6  # sqrt(4) if all four always agree


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_coverage_is_near_95_percent(share: float) -> None:
    """0.95 of 600 intervals should cover the truth, +- 0.009; near 1 they cover it more often by design."""
    rng, hits, trials = np.random.default_rng(1), 0, 600
    for trial in range(trials):
        rates = rng.beta(4 * share, 4 * (1 - share), (3, 60))  # images of a prompt correlate by 0.2
        scores = (rng.random((3, 60, 4)) < rates[..., None]).astype(float)
        _, low, high = clustered_interval(scores.tolist(), seed=trial)
        hits += low <= share <= high
    assert 0.92 <= hits / trials <= 0.99


def test_if_all_images_are_correct_the_interval_is_not_a_point() -> None:
    value, low, high = clustered_interval([[[1.0] * 4] * 20])
    assert value == high == 1.0
    assert 0.8 < low < 0.9


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_wilsons_interval_contains_the_share(share: float, n: int) -> None:
    low, high = wilson_interval(share, n)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


def test_wilsons_interval_equals_a_published_one() -> None:
    # Newcombe 1998, table I: 15 of 148 gives 0.0624 to 0.1605.
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def _task(right: int, prompts: int = 60) -> list[list[float]]:
    """`right` of four images a prompt, the wrong ones in as few prompts as can be."""
    return [[float(4 * i + j < right) for j in range(4)] for i in range(prompts)]


def test_one_wrong_image_never_raises_the_limits() -> None:
    for tasks in (1, 3):
        others = [_task(200)] * (tasks - 1)
        limits = [clustered_interval([_task(right), *others])[1:] for right in (240, 239, 238, 236, 230)]
        lows, highs = zip(*limits, strict=True)
        assert list(lows) == sorted(lows, reverse=True)
        assert list(highs) == sorted(highs, reverse=True)


def test_near_0_and_1_the_interval_is_wider_than_the_bootstraps() -> None:
    _, low, high = clustered_interval([_task(239)])
    assert low == pytest.approx(wilson_interval(1, 60)[0])  # the bootstrap: 0.9875
    assert 239 / 240 < high <= 1
    _, low, high = clustered_interval([_task(1)])
    assert high == pytest.approx(wilson_interval(0, 60)[1])
    assert 0 <= low < 1 / 240


def test_a_task_without_errors_still_widens_the_interval_of_the_mean() -> None:
    half = [[1.0], [0.0]] * 30
    value, low, _ = clustered_interval([half, _task(240)])
    below = np.hypot(0.5 - wilson_interval(0.5, 60)[0], 1 - wilson_interval(1, 60)[0]) / 2
    assert value == 0.75
    assert low == pytest.approx(0.75 - below)


def test_the_effective_sample_size_is_between_prompts_and_images() -> None:
    prompts = [[1.0] * 4, [0.0] * 4] * 30
    assert _effective_size(prompts) == pytest.approx(60)
    assert _effective_size([[score] for scores in prompts for score in scores]) == pytest.approx(240)
    assert _effective_size([[0.7] * 3, [0.7] * 4]) == 2


def _effective_size(prompts: list[list[float]]) -> float:
    return _effective_sample_size(totals_of(measure([prompts]))[0])


def test_scores_beyond_0_and_1_have_the_bootstraps_interval() -> None:
    assert clustered_interval([[[5.0, 5.0], [5.0]]]) == (5.0, 5.0, 5.0)
    value, low, high = clustered_interval([[[-1.0], [3.0], [2.0]]])
    assert value == pytest.approx(4 / 3)
    assert -1 <= low < value < high <= 3


def test_unequal_tasks_weigh_the_same() -> None:
    value, low, high = clustered_interval([_task(4, 2), _task(0, 50)])
    assert value == 0.25
    assert 0 <= low < 0.05
    assert 0.45 < high <= 0.55


@given(
    st.lists(
        st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=50, deadline=None)
def test_the_interval_contains_the_value_and_stays_in_range(strata: list[list[list[float]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 100)
        value, low, high = clustered_interval(strata)
    assert 0 <= low <= value <= high <= 1 + 1e-12


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = (np.random.default_rng(2).random((2, 50, 3)) * 9).tolist()
    whole = clustered_interval(scores)
    monkeypatch.setattr(intervals, "CHUNK_SIZE", 50 * 37)
    assert clustered_interval(scores) == pytest.approx(whole, rel=1e-12)


@pytest.mark.slow
def test_many_prompts_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 150)  # all at once: 120 MB of counts, and again as floats
    scores = np.random.default_rng(3).random((100_000, 1)).tolist()
    tracemalloc.start()
    try:
        clustered_interval([scores])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6
