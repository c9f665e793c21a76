"""Differences of two runs: against scipy and plain loops, and what they must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_rel

from sar_eval.measures import Measure, stratum
from sar_eval.stats import paired as paired_stats
from sar_eval.stats.differences import adjust, difference, differences
from sar_eval.stats.paired import bootstrap_values, permutation_p, standard_error
from sar_eval.stats.pairing import missing_keys, pair
from sar_eval.stats.power import detectable, images_needed, prompts_needed
from tests.score_lists import measure


def _scores(rng: np.random.Generator, share: float, shape: tuple[int, ...] = (1, 9, 4)) -> list:
    return (rng.random(shape) < share).astype(float).tolist()


def _mean_difference(a: np.ndarray, b: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.mean(a - b, axis=axis)


@pytest.mark.parametrize("seed", range(5))
def test_p_of_few_prompts_is_scipys_exact_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = _scores(rng, 0.4), _scores(rng, 0.6)
    found = difference(pair(measure(first), measure(second)))
    means = (np.mean(second[0], axis=1), np.mean(first[0], axis=1))
    exact = permutation_test(means, _mean_difference, permutation_type="samples", vectorized=True)
    assert found.value == pytest.approx(exact.statistic)
    assert found.p == pytest.approx(exact.pvalue)


def test_p_of_many_prompts_is_near_scipys_random_one() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 60), rng.normal(0.2, 1, 60)
    both = [measure([[[x] for x in scores.tolist()]]) for scores in (first, second)]
    reference = permutation_test(
        (second, first),
        _mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    assert difference(pair(*both)).p == pytest.approx(reference.pvalue, abs=0.01)


def test_the_exact_p_over_several_tasks_is_that_of_all_assignments() -> None:
    first, second = measure([[[0], [1]], [[0], [0], [0]]]), measure([[[1], [1]], [[1], [1], [0]]])
    tasks = pair(first, second).tasks
    # One prompt of two counts 1/2 in its task, two of three 1/3 each; tasks weigh the same.
    gains = [(a / 2 + (b + c) / 3) / 2 for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    observed = (1 / 2 + 2 / 3) / 2
    assert permutation_p(tasks) == np.mean([abs(g) >= observed - 1e-12 for g in gains]) == 0.25


def test_the_bootstrap_is_the_plain_one() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 40, 2)), rng.random((2, 40, 2))
    found = bootstrap_values(pair(measure(a.tolist()), measure(b.tolist())))
    gains = (b - a).mean(axis=2)
    plain = [np.mean([rng.choice(task, 40).mean() for task in gains]) for _ in range(10_000)]
    assert np.mean(found) == pytest.approx(np.mean(plain), abs=0.001)
    assert np.percentile(found, [2.5, 97.5]) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.005)


def test_the_standard_error_of_one_task_is_that_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(5, 2, 30), rng.normal(5, 2, 30)
    both = [measure([[[x] for x in scores.tolist()]]) for scores in (a, b)]
    test = ttest_rel(b, a)
    assert np.mean(b - a) / standard_error(pair(*both)) == pytest.approx(test.statistic)
    low, high = test.confidence_interval()
    found = difference(pair(*both))
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_many_kinds_of_totals_take_the_normal_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    both = [measure([rng.normal(mean, 1, (400, 2)).tolist()]) for mean in (0, 0.1)]
    before = difference(pair(*both))
    monkeypatch.setattr(paired_stats, "MAX_KINDS", 100)
    after = difference(pair(*both))
    assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=0.01)
    assert after.p == pytest.approx(before.p, abs=0.02)


def test_chunks_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    both = [measure(rng.random((2, 50, 3)).tolist()) for _ in range(2)]
    whole = bootstrap_values(pair(*both))
    monkeypatch.setattr(paired_stats, "CHUNK_SIZE", 50 * 37)
    assert bootstrap_values(pair(*both)) == pytest.approx(whole, rel=1e-9)


def test_equal_runs_leave_some_doubt_and_few_prompts_much() -> None:
    for prompts, at_least, at_most in ((553, 0.002, 0.006), (60, 0.02, 0.05), (2, 0.5, 1.0)):
        scores = measure([[[1.0, 0.0]] * prompts])
        found = difference(pair(scores, scores))
        assert (found.value, found.p, found.winner, found.tied) == (0, 1, "", prompts)
        assert at_least <= found.high == -found.low <= at_most


def test_all_prompts_won() -> None:
    found = difference(pair(measure([[[0.0] * 4] * 50]), measure([[[1.0] * 4] * 50])))
    assert (found.value, found.won, found.lost, found.tied, found.winner) == (1, 50, 0, 0, "second")
    assert 0.9 < found.low < found.high == 1
    assert found.p < 0.001


def test_unbounded_scores_of_one_prompt_have_no_interval() -> None:
    found = difference(pair(measure([[[7.0]]]), measure([[[9.0]]])))
    assert (found.value, found.low, found.high, found.lower, found.winner) == (2, None, None, None, "")
    assert found.p == 1


def test_equal_unbounded_scores_know_nothing_of_power() -> None:
    scores = measure([[[7.0]] * 9])
    found = difference(pair(scores, scores))
    assert (found.low, found.high, found.detectable, found.prompts_needed) == (0, 0, None, None)


def test_a_scale_multiplies_every_figure() -> None:
    rng = np.random.default_rng(6)
    tasks = _scores(rng, 0.5, (2, 20, 4)), _scores(rng, 0.6, (2, 20, 4))
    share = difference(pair(*(measure(t) for t in tasks)))
    points = difference(pair(*(measure(t, scale=100) for t in tasks)))
    for name in ("first", "second", "value", "low", "high", "lower", "upper", "detectable"):
        assert getattr(points, name) == pytest.approx(100 * getattr(share, name))
    assert (points.p, points.won, points.prompts_needed) == (share.p, share.won, share.prompts_needed)


def test_the_one_sided_bounds_lie_inside_the_interval() -> None:
    rng = np.random.default_rng(7)
    found = difference(pair(measure(_scores(rng, 0.5)), measure(_scores(rng, 0.6))))
    assert found.low < found.lower < found.value < found.upper < found.high


def test_only_draws_that_both_have_are_paired() -> None:
    first = Measure("overall", (stratum([("a", 0, 1.0, 1.0), ("a", 1, 0.0, 1.0), ("b", 0, 1.0, 1.0)]),))
    second = Measure("overall", (stratum([("c", 0, 1.0, 1.0), ("b", 0, 0.0, 1.0), ("a", 1, 1.0, 1.0)]),))
    joined = pair(first, second)
    assert (joined.prompts, joined.draws, joined.unpaired) == (2, 2, 2)
    assert [task.gains.tolist() for task in joined.tasks] == [[1.0, -1.0]]
    assert missing_keys(first.strata, second.strata) == ({"a/0"}, {"c/0"})


def test_runs_without_a_common_draw_have_no_difference() -> None:
    first = Measure("overall", (stratum([("a", 0, 1.0, 1.0)], "x"),))
    for other in (stratum([("a", 0, 1.0, 1.0)], "y"), stratum([("b", 0, 1.0, 1.0)], "x"), stratum([], "x")):
        assert differences([first], [Measure("overall", (other,))]) == ()


def test_any_of_n_is_taken_over_the_common_draws() -> None:
    rows = [("a", 0, 0.0, 1.0), ("a", 1, 1.0, 1.0), ("b", 0, 0.0, 1.0)]
    first = Measure("any", (stratum(rows),), combine="max")
    second = Measure("any", (stratum([("a", 0, 1.0, 1.0), ("b", 0, 0.0, 1.0)]),), combine="max")
    found = difference(pair(first, second))
    assert (found.first, found.second, found.images_needed) == (0, 0.5, None)


def test_weights_that_differ_are_those_of_ratios() -> None:
    """A category whose questions a run answers for another number of images: weighted by questions."""
    first = Measure("c", (stratum([("a", 0, 1.0, 2.0), ("b", 0, 3.0, 3.0)]),))
    second = Measure("c", (stratum([("a", 0, 2.0, 4.0), ("b", 0, 1.0, 1.0)]),))
    found = difference(pair(first, second))
    assert (found.first, found.second) == (4 / 5, 3 / 5)
    # Swapping a: (2 + 3) / 7 and (1 + 1) / 3; no assignment but the observed and its opposite is as large.
    assert found.p == 0.5


def test_effects_of_rules_are_not_compared() -> None:
    effect = measure([[[0.1]]], "quirk/x", is_effect=True)
    assert differences([effect], [effect]) == ()


def test_p_is_adjusted_within_groups_and_over_pairs() -> None:
    rng = np.random.default_rng(8)
    pairs = []
    for _ in range(2):
        found = [measure(_scores(rng, 0.5), name) for name in ("overall", "task/a", "task/b")]
        others = [measure(_scores(rng, 0.7), m.name) for m in found]
        pairs.append(differences(found, others))
    adjusted = adjust(pairs)
    tasks = [d.p for found in pairs for d in found if d.group == "task"]
    smallest = min(tasks)
    best = next(d for found in adjusted for d in found if d.group == "task" and d.p == smallest)
    assert best.p_adjusted == pytest.approx(min(1, 4 * smallest))
    overall = [found[0].p for found in pairs]
    assert min(found[0].p_adjusted for found in adjusted) == pytest.approx(min(1, 2 * min(overall)))


def test_power_grows_with_the_root_of_the_prompts() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.random((1, 50, 4)), rng.random((1, 50, 4)) + 0.05
    few = pair(measure((9 * a).tolist()), measure((9 * b).tolist()))
    many = pair(*(measure([(9 * x)[0].tolist() * 100]) for x in (a, b)))
    assert detectable(few) / detectable(many) == pytest.approx(10, rel=0.05)
    assert prompts_needed(few) == pytest.approx(prompts_needed(many), rel=0.1)


def test_more_images_help_only_against_the_noise_of_draws() -> None:
    rng = np.random.default_rng(10)
    noise = rng.normal(0, 1, (1, 1000, 4))
    zero = np.zeros((1, 1000, 4))
    by_draw = pair(measure(zero.tolist()), measure((noise + 0.05).tolist()))
    assert images_needed(by_draw) == pytest.approx(4 * prompts_needed(by_draw) / 1000, rel=0.3)
    # The same noise for all images of a prompt: more of them tell nothing new.
    by_prompt = np.repeat(noise[:, :, :1], 4, axis=2)
    assert images_needed(pair(measure(zero.tolist()), measure((by_prompt + 0.05).tolist()))) is None


@given(
    st.lists(
        st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 1.0])] * 4), min_size=1, max_size=5),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_scores_the_records_hold_together(tasks: list[list[tuple[float, ...]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired_stats, "RESAMPLES", 200)
        first = measure([[p[:2] for p in task] for task in tasks])
        second = measure([[p[2:] for p in task] for task in tasks])
        there, back = difference(pair(first, second)), difference(pair(second, first))
    assert -1 <= there.low <= there.lower <= there.value <= there.upper <= there.high <= 1
    assert 0 < there.p <= 1
    assert there.won + there.lost + there.tied == there.prompts == sum(map(len, tasks))
    assert (back.value, back.won, back.p) == (
        pytest.approx(-there.value),
        there.lost,
        pytest.approx(there.p),
    )
