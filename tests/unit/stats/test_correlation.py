"""Rank correlation and AUC: scipy's values, ties, what is missing, and intervals that cover."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from sar_eval.stats.correlation import auc, spearman

NAN = float("nan")


def prompts(pictures: int, each: int = 4) -> np.ndarray:
    return np.arange(pictures) // each


@pytest.mark.parametrize("kinds", [3, 40, 10**6])
def test_spearmans_rho_is_scipys_with_and_without_ties(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    first = rng.integers(0, kinds, 200).astype(float)
    second = first + rng.integers(0, kinds, 200)
    found = spearman(first, second, prompts(200))
    assert found.value == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert found.low < found.value < found.high
    assert (found.pictures, found.prompts) == (200, 50)


@pytest.mark.parametrize("kinds", [4, 10**6])
def test_auc_is_mann_whitneys_share_of_pairs(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    passed = (rng.random(160) < 0.7).astype(float)
    scores = rng.integers(0, kinds, 160) + 0.4 * kinds * passed
    pairs = passed.sum() * (160 - passed.sum())
    expected = mannwhitneyu(scores[passed == 1], scores[passed == 0]).statistic / pairs
    assert auc(scores, passed, prompts(160)).value == pytest.approx(expected, abs=1e-12)


def test_pictures_without_a_number_are_left_out() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 100))
    first[:8], second[3:10] = NAN, NAN
    found = spearman(first, second, prompts(100))
    assert found == spearman(first[10:], second[10:], prompts(100)[10:])
    assert (found.pictures, found.prompts) == (90, 23)


def test_the_order_of_the_pictures_does_not_matter_for_the_value_and_the_seed_fixes_the_rest() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 80))
    found = spearman(first, second, prompts(80))
    order = rng.permutation(80)
    assert spearman(first[order], second[order], prompts(80)[order]) == pytest.approx(found)
    assert spearman(first, second, prompts(80)) == found
    assert spearman(first, second, prompts(80), seed=1).low != found.low


@pytest.mark.parametrize("pictures", [0, 1, 40])
def test_no_value_where_nothing_varies(pictures: int) -> None:
    ones = np.ones(pictures)
    found = spearman(ones, np.arange(pictures, dtype=float), prompts(pictures))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert auc(np.arange(pictures, dtype=float), ones, prompts(pictures)).value is None


def test_no_interval_from_few_prompts_or_where_all_resamples_agree() -> None:
    rising = np.arange(100, dtype=float)
    few = spearman(rising[:36], -rising[:36], prompts(36))
    assert few.value == pytest.approx(-1)
    assert few.low is None
    perfect = auc(rising, (rising > 50).astype(float), prompts(100))
    assert (perfect.value, perfect.low, perfect.high) == (1.0, None, None)


def test_pictures_of_one_prompt_are_one_witness() -> None:
    """Every picture drawn four times says no more than once; taken for independent, it would."""
    first, second = np.random.default_rng(3).normal(size=(2, 50))
    once = spearman(first, second, np.arange(50))
    fourfold = spearman(np.repeat(first, 4), np.repeat(second, 4), prompts(200))
    independent = spearman(np.repeat(first, 4), np.repeat(second, 4), np.arange(200))
    assert fourfold.high - fourfold.low == pytest.approx(once.high - once.low, rel=0.05)
    assert independent.high - independent.low < 0.6 * (once.high - once.low)


def _suite(rng: np.random.Generator, count: int, rho: float) -> np.ndarray:
    """Pairs of numbers of four pictures of each prompt, which share 60 % of their variance."""
    both = [[1, rho], [rho, 1]]
    shared = rng.multivariate_normal([0, 0], both, (count, 1))
    return np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.multivariate_normal([0, 0], both, (count, 4))


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 40])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_intervals_cover_the_truth(count: int, rho: float) -> None:
    """95 % of them, to within three standard errors of 200 suites."""
    rng = np.random.default_rng(4)
    whole = _suite(rng, 20_000, rho).reshape(-1, 2)
    truth = spearmanr(whole).statistic
    passed = whole[:, 1] > -0.5
    area = mannwhitneyu(whole[passed, 0], whole[~passed, 0]).statistic / (passed.sum() * (~passed).sum())
    covered = np.zeros(2)
    for seed in range(200):
        first, second = _suite(rng, count, rho).reshape(-1, 2).T
        rank = spearman(first, second, prompts(4 * count), seed)
        pass_rank = auc(first, (second > -0.5).astype(float), prompts(4 * count), seed)
        covered += [rank.low <= truth <= rank.high, pass_rank.low <= area <= pass_rank.high]
    assert (covered >= 180).all(), covered
