"""Distances between two sets of feature vectors by a kernel (maximum mean discrepancy, MMD): KID and CMMD.

The order of the two sets changes no figure: whatever is drawn comes from two streams of random numbers, and
each pair of draws serves once in either order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Kernel = Callable[[Array, Array], Array]

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # of clean-fid and torch-fidelity
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # Jayasumana et al. 2024
GROUPS, RESAMPLES = 1000, 2000  # of the bootstrap
KERNEL_VALUES = 2**22  # in memory at once: 32 MB


@dataclass(frozen=True, slots=True)
class KidEstimate:
    """KID's mean over subsets; standard deviation over them, and the error that drawing them leaves."""

    value: float
    subset_deviation: float
    standard_error: float

    @classmethod
    def of(cls, subsets: list[float]) -> KidEstimate:
        """From the MMD^2 of each pair of subsets."""
        deviation = float(np.std(subsets))
        return cls(float(np.mean(subsets)), deviation, deviation / len(subsets) ** 0.5)


def cubic(x: Array, y: Array) -> Array:
    """KID's kernel (x.y / D + 1)^3 `[N, M]` of `[N, D]` and `[M, D]` (Binkowski et al. 2018)."""
    values = x @ y.T / x.shape[1] + 1
    return np.asarray(values * values * values)


def gaussian(x: Array, y: Array) -> Array:
    """CMMD's kernel exp(-|x - y|^2 / (2 sigma^2)) `[N, M]` with sigma = 10."""
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    return np.asarray(np.exp(squares / (-2 * CMMD_SIGMA**2)))


def unbiased_mmd2(x: NDArray[Any], y: NDArray[Any], kernel: Kernel) -> float:
    """Squared MMD of `[M, D]` and `[M, D]` without bias (Gretton et al. 2012, eq. 3); may be negative."""
    x, y, m = x.astype(np.float64), y.astype(np.float64), len(x)
    own = sum(float(k.sum() - np.trace(k)) for k in (kernel(x, x), kernel(y, y)))
    return own / (m * (m - 1)) - 2 * float(kernel(x, y).mean())


def kid(x: NDArray[Any], y: NDArray[Any], seed: int) -> KidEstimate:
    """Kernel Inception Distance: the mean of the unbiased MMD^2 over 100 pairs of random subsets.

    Subsets have 1,000 vectors, or as many as the smaller set has (clean-fid's rule). If both sets are
    taken whole there is one pair, and no error of drawing.

    Args:
        x, y: features `[N, D]` and `[M, D]`, at least two each.
        seed: of the subsets.
    """
    pairs = _subsets(len(x), len(y), min(len(x), len(y), KID_SUBSET_SIZE), seed)
    return KidEstimate.of([unbiased_mmd2(x[i], y[j], cubic) for i, j in pairs])


def _subsets(n: int, m: int, size: int, seed: int) -> Iterator[tuple[Any, Any]]:
    if n == m == size:
        yield slice(None), slice(None)
        return
    streams = np.random.SeedSequence(seed).spawn(KID_SUBSETS)
    for one, other in zip(streams[::2], streams[1::2], strict=True):
        for first, second in ((one, other), (other, one)):
            yield _choice(n, size, first), _choice(m, size, second)


def _choice(n: int, size: int, stream: np.random.SeedSequence) -> Numbers:
    return np.random.default_rng(stream).choice(n, size, replace=False)


@dataclass(frozen=True, slots=True)
class KernelSums:
    """Sums of a kernel over pairs of vectors, by the groups that these are resampled in.

    Attributes:
        first, second: sums within a set `[G, G]`, `[H, H]`.
        across: `[G, H]`.
        sizes: vectors of each group of either set.
    """

    first: Array
    second: Array
    across: Array
    sizes: tuple[Numbers, Numbers]

    @classmethod
    def of(
        cls,
        vectors: tuple[NDArray[Any], NDArray[Any]],
        units: tuple[Numbers, Numbers],
        kernel: Kernel,
        seed: int,
    ) -> KernelSums:
        """Evaluate the kernel on all pairs, once.

        Args:
            vectors: `[N, D]` and `[M, D]`.
            units: what is resampled as one, as number of each vector: a prompt with its images, or an
                image. More than 1,000 of them are put into 1,000 groups at random.
            kernel: `cubic` or `gaussian`.
            seed: of the groups.
        """
        groups = [_groups(numbers, seed) for numbers in units]
        (x, y), (g, h) = vectors, groups
        first, second = _sums(x, x, g, g, kernel), _sums(y, y, h, h, kernel)
        return cls(first, second, _sums(x, y, g, h, kernel), (np.bincount(g), np.bincount(h)))

    def biased_mmd2(self) -> float:
        """Squared MMD with its bias (Gretton et al. 2012, eq. 5), never negative but for rounding."""
        n, m = (int(sizes.sum()) for sizes in self.sizes)
        own = self.first.sum() / n**2 + self.second.sum() / m**2
        return float(own - 2 * self.across.sum() / (n * m))

    def spread(self, seed: int) -> tuple[float, float]:
        """By how much the MMD^2 varies with the sets: offsets of a 95 % interval from the estimate.

        Percentile bootstrap, 2,000 resamples of the groups of either set. Resampled sets hold vectors
        twice, which makes their MMD^2 too large, so the resamples are centred on their mean.
        """
        g, h = (_resamples(len(sizes), seed, swap) for sizes, swap in zip(self.sizes, (0, 1), strict=True))
        n, m = (weights @ sizes for weights, sizes in zip((g, h), self.sizes, strict=True))
        own = _weighted(g, self.first, g) / n**2 + _weighted(h, self.second, h) / m**2
        resampled = own - 2 * _weighted(g, self.across, h) / (n * m)
        low, high = np.percentile(resampled - resampled.mean(), [2.5, 97.5])
        return float(low), float(high)


def cmmd(sums: KernelSums) -> float:
    """CLIP-MMD: 1,000 times the biased MMD^2 (Jayasumana et al. 2024)."""
    return max(0.0, CMMD_SCALE * sums.biased_mmd2())


def _groups(units: Numbers, seed: int) -> Numbers:
    _, own = np.unique(units, return_inverse=True)
    number = int(own.max()) + 1
    if number <= GROUPS:
        return own
    return np.asarray((np.random.default_rng(seed).permutation(number) % GROUPS)[own])


def _sums(x: NDArray[Any], y: NDArray[Any], of_x: Numbers, of_y: Numbers, kernel: Kernel) -> Array:
    """Sums of the kernel `[groups of x, groups of y]`; some rows are in memory at a time."""
    columns = np.argsort(of_y, kind="stable")
    y, starts = y[columns].astype(np.float64), np.searchsorted(of_y[columns], np.arange(of_y.max() + 1))
    sums = np.zeros((int(of_x.max()) + 1, len(starts)))
    rows = max(1, KERNEL_VALUES // len(y))
    for start in range(0, len(x), rows):
        values = kernel(x[start : start + rows].astype(np.float64), y)
        np.add.at(sums, of_x[start : start + rows], np.add.reduceat(values, starts, axis=1))
    return sums


def _resamples(groups: int, seed: int, swap: int) -> Array:
    """How often each resample takes each group `[R, G]`; half of the rows come from either stream."""
    streams = np.random.SeedSequence(seed).spawn(2)
    shares = np.full(groups, 1 / groups)
    halves = (np.random.default_rng(s).multinomial(groups, shares, RESAMPLES // 2) for s in streams)
    both = list(halves)
    return np.concatenate(both[::-1] if swap else both).astype(np.float64)


def _weighted(rows: Array, sums: Array, columns: Array) -> Array:
    return np.asarray(((rows @ sums) * columns).sum(1))
