"""The Fréchet distance: of known Gaussians, of singular ones, in any order and any batches."""

import numpy as np
import pytest

from sar_eval.stats.frechet import Gaussian, Moments, frechet_distance
from tests.inception_case import features


def _gaussian(vectors):
    return Moments.of(vectors).gaussian()


def test_of_gaussians_with_one_basis_it_is_known() -> None:
    """With commuting covariances: |m1 - m2|^2 + sum of (s1 - s2)^2."""
    first = Gaussian(np.array([1.0, 2, 3]), np.diag([4.0, 9, 16]))
    second = Gaussian(np.array([1.0, 0, 0]), np.diag([1.0, 1, 25]))
    assert frechet_distance(first, second) == pytest.approx(4 + 9 + 1 + 4 + 1, rel=1e-14)


def test_moments_are_numpys() -> None:
    vectors = features(70, 12, 3)
    found = _gaussian(vectors)
    assert found.n == 70
    np.testing.assert_allclose(found.mean, vectors.astype(float).mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(vectors.astype(float), rowvar=False), atol=1e-15)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_change_rounding_alone(size) -> None:
    vectors, other = features(150, 20, 4), _gaussian(features(90, 20, 5, 0.02))
    moments = Moments.of(vectors[:size])
    for start in range(size, len(vectors), size):
        moments.add(Moments.of(vectors[start : start + size]))
    whole = frechet_distance(_gaussian(vectors), other)
    assert frechet_distance(moments.gaussian(), other) == pytest.approx(whole, rel=1e-11)


@pytest.mark.parametrize("n", [500, 40, 2])
def test_equal_sets_are_at_0(n) -> None:
    one = _gaussian(features(n, 64, 6))
    assert frechet_distance(one, one) == 0
    shuffled = features(n, 64, 6)[np.random.default_rng(0).permutation(n)]
    assert frechet_distance(one, _gaussian(shuffled)) == 0


@pytest.mark.parametrize("n", [500, 40])
def test_the_order_does_not_matter(n) -> None:
    first, second = _gaussian(features(n, 64, 6)), _gaussian(features(70, 64, 7, 0.05))
    there, back = frechet_distance(first, second), frechet_distance(second, first)
    assert there > 0
    assert there == pytest.approx(back, rel=1e-12)


def test_singular_covariances_are_exact() -> None:
    """Of a few vectors in many dimensions the trace is a nuclear norm of a small matrix."""
    x, y = features(7, 250, 8).astype(float), features(9, 250, 9, 0.1).astype(float)
    a, b = ((v - v.mean(0)) / (len(v) - 1) ** 0.5 for v in (x, y))
    step = x.mean(0) - y.mean(0)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = step @ step + (a * a).sum() + (b * b).sum() - 2 * root
    assert frechet_distance(_gaussian(x), _gaussian(y)) == pytest.approx(expected, rel=1e-11)


def test_sets_of_one_picture_over_and_over_have_a_distance() -> None:
    same = np.ones((5, 8))
    assert frechet_distance(_gaussian(same), _gaussian(same)) == 0
    assert frechet_distance(_gaussian(same), _gaussian(3 * same)) == pytest.approx(32)
