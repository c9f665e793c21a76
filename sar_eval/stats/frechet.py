"""The Fréchet distance between two sets of feature vectors, each summed up as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean `[D]` and covariance `[D, D]` of n vectors; n is None where nobody wrote it down."""

    mean: Array
    covariance: Array
    n: int | None = None


@dataclass(slots=True)
class Moments:
    """Number, mean and scatter (sum of outer products of deviations) of vectors that come in batches.

    Batches are joined by the update of Chan, Golub and LeVeque (1979), in float64: memory does not depend
    on how many vectors there are, and the result depends on their batches by rounding alone.
    """

    n: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, vectors: NDArray[Any]) -> Self:
        """The moments of `[N, D]` vectors, N > 0."""
        exact = np.asarray(vectors, dtype=np.float64)
        mean = exact.mean(axis=0)
        deviations = exact - mean
        return cls(len(exact), mean, deviations.T @ deviations)

    def add(self, other: Moments) -> None:
        """Take in the vectors of another set."""
        n, step = self.n + other.n, other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(step, step * (self.n * other.n / n))
        self.mean = self.mean + step * (other.n / n)
        self.n = n

    def gaussian(self) -> Gaussian:
        """Mean and covariance, which is divided by n - 1 as everywhere; n must be 2 or more."""
        return Gaussian(self.mean, self.scatter / (self.n - 1), self.n)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """The squared Fréchet (2-Wasserstein) distance between two Gaussians (Dowson and Landau 1982).

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), which is FID for Inception's features (Heusel et
    al. 2017). With S = F F', the eigenvalues of S1^1/2 S2 S1^1/2 are the squared singular values of F1' F2,
    so the last trace is their sum. No root of a matrix that is not symmetric is taken, and where a
    covariance is singular (fewer vectors than dimensions) nothing but its own range enters: the roots of
    thousands of eigenvalues that are zero but for rounding would add up to 1e-4 of the distance. What is
    left of equal sets is rounding, and 0.
    """
    step = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    distance = step @ step + traces - 2 * _root_trace(first.covariance, second.covariance)
    rounding = len(step) * np.finfo(np.float64).eps * traces
    return 0.0 if np.isfinite(distance) and distance <= rounding else float(distance)


def _root_trace(first: Array, second: Array) -> float:
    product = _factor(first).T @ _factor(second)
    return float(np.linalg.svd(product, compute_uv=False).sum()) if product.size else 0.0


def _factor(covariance: Array) -> Array:
    """F `[D, rank]` with F F' = S; eigenvalues that are zero but for rounding are left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))
