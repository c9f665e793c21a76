"""KID and CMMD: unbiased or 0 where they should be, in any order, with intervals that hold the truth."""

import numpy as np
import pytest

from sar_eval.stats import kernel_distances as kernels
from sar_eval.stats.kernel_distances import KernelSums, cmmd, cubic, gaussian, kid, unbiased_mmd2
from tests.inception_case import features


def _units(*sets):
    return tuple(np.arange(len(one)) for one in sets)


def _unit_vectors(n, seed, shift=0.0):
    vectors = features(n, 24, seed, shift).astype(float) + 0.01
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_cmmd_of_equal_sets_is_0() -> None:
    x = _unit_vectors(60, 1)
    sums = KernelSums.of((x, x[::-1]), _units(x, x), gaussian, 0)
    assert cmmd(sums) == pytest.approx(0, abs=1e-10)


def test_cmmd_is_its_formula() -> None:
    x, y = _unit_vectors(30, 1), _unit_vectors(41, 2, 0.2)
    means = [np.exp(-((a[:, None] - b) ** 2).sum(-1) / 200).mean() for a, b in ((x, x), (y, y), (x, y))]
    found = cmmd(KernelSums.of((x, y), _units(x, y), gaussian, 0))
    assert found == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]), rel=1e-9)


def test_rows_in_memory_change_nothing(monkeypatch) -> None:
    x, y = _unit_vectors(50, 1), _unit_vectors(33, 2)
    whole = KernelSums.of((x, y), _units(x, y), gaussian, 0)
    monkeypatch.setattr(kernels, "KERNEL_VALUES", 7)
    rows = KernelSums.of((x, y), _units(x, y), gaussian, 0)
    np.testing.assert_allclose(rows.across, whole.across, rtol=1e-14)


def test_the_order_of_the_sets_does_not_matter(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "KID_SUBSET_SIZE", 20)
    x, y = features(60, 16, 1), features(45, 16, 2, 0.05)
    assert kid(x, y, 3).value == pytest.approx(kid(y, x, 3).value, rel=1e-12)
    there = KernelSums.of((x, y), _units(x, y), cubic, 3).spread(3)
    back = KernelSums.of((y, x), _units(y, x), cubic, 3).spread(3)
    assert there == pytest.approx(back, rel=1e-9)


def test_kid_is_unbiased_and_its_subsets_are_seeded(monkeypatch) -> None:
    """Of two samples of one population it is 0 on average, and of a set with itself below 0."""
    monkeypatch.setattr(kernels, "KID_SUBSET_SIZE", 15)
    values = [kid(features(40, 8, 2 * s), features(30, 8, 2 * s + 1), s).value for s in range(40)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5
    x = features(40, 8, 0)
    assert unbiased_mmd2(x, x, cubic) < 0
    assert kid(x, features(30, 8, 1), 0) == kid(x, features(30, 8, 1), 0)
    assert kid(x, features(30, 8, 1), 0) != kid(x, features(30, 8, 1), 1)


def test_sets_that_are_taken_whole_have_no_error_of_drawing() -> None:
    found = kid(features(30, 8, 0), features(30, 8, 1), 0)
    assert found.standard_error == 0
    assert found.value == unbiased_mmd2(features(30, 8, 0), features(30, 8, 1), cubic)


@pytest.mark.slow
def test_intervals_hold_the_truth(monkeypatch) -> None:
    """95 % of them, up to the error of 60 cases; the truth is that of two large samples."""
    monkeypatch.setattr(kernels, "RESAMPLES", 400)
    truth = unbiased_mmd2(features(2500, 8, 1001), features(2500, 8, 1002, 0.15), cubic)
    held = 0
    for seed in range(60):
        x, y = features(80, 8, 3 * seed), features(80, 8, 3 * seed + 1, 0.15)
        low, high = KernelSums.of((x, y), _units(x, y), cubic, seed).spread(seed)
        value = unbiased_mmd2(x, y, cubic)
        held += value + low <= truth <= value + high
    assert held >= 0.88 * 60


def test_pictures_of_a_prompt_are_resampled_together() -> None:
    """Four copies of each vector hold no more than one: the interval is that of the single ones."""
    x, y = features(60, 8, 1), features(50, 8, 2, 0.2)
    single = KernelSums.of((x, y), _units(x, y), cubic, 0).spread(0)
    copies = np.repeat(x, 4, 0), np.repeat(y, 4, 0)
    grouped = KernelSums.of(copies, tuple(np.repeat(u, 4) for u in _units(x, y)), cubic, 0).spread(0)
    apart = KernelSums.of(copies, _units(*copies), cubic, 0).spread(0)
    assert grouped == pytest.approx(single, rel=1e-9)
    assert apart[1] - apart[0] < 0.7 * (single[1] - single[0])


def test_many_pictures_are_resampled_in_groups(monkeypatch) -> None:
    x, y = features(300, 8, 1), features(200, 8, 2, 0.2)
    exact = KernelSums.of((x, y), _units(x, y), cubic, 0)
    monkeypatch.setattr(kernels, "GROUPS", 60)
    grouped = KernelSums.of((x, y), _units(x, y), cubic, 0)
    assert grouped.across.shape == (60, 60)
    assert grouped.biased_mmd2() == pytest.approx(exact.biased_mmd2(), rel=1e-9)
    widths = [high - low for low, high in (exact.spread(0), grouped.spread(0))]
    assert widths[1] == pytest.approx(widths[0], rel=0.35)
