"""Paired runs of suites like GenEval's, made by the thousand: for tests of what statistics promise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

PROMPTS = (80, 99, 80, 94, 100, 100)  # of GenEval's tasks
SHARES = (0.97, 0.85, 0.55, 0.80, 0.20, 0.05)  # of correct images by task, in the first run
UNEVEN = (0.2, -0.3, 0.4, -0.2, 0.1, -0.1)  # what tasks gain beside the mean gain, in log odds
QUANTILES = 1000


@dataclass(frozen=True)
class Pairs:
    """Two runs of one suite.

    Attributes:
        difference: true one, of the unweighted mean over tasks.
        correlation: of two images of a prompt, right or wrong, 0 to 1.
        seeds_shared: whether images of the same index were drawn with the same noise, so that they are
            right or wrong together as often as they can be.
        images: of each prompt.
    """

    difference: float
    correlation: float
    seeds_shared: bool
    images: int = 4

    def gains(self, tasks: NDArray[np.int64], suites: int, seed: int) -> NDArray[np.float64]:
        """Second run less first, of the mean score of each prompt [suites, prompts].

        Args:
            tasks: of the prompts.
            suites: how many to make.
            seed: of the randomness.
        """
        rng = np.random.default_rng(seed)
        hardness = rng.random((suites, len(tasks)))
        noise = rng.random((2, suites, len(tasks), self.images))
        correct = [
            noise[0 if self.seeds_shared else run] < self._chances(shares, tasks, hardness)[..., None]
            for run, shares in enumerate((np.array(SHARES), self._second_shares()))
        ]
        return np.asarray(correct[1].mean(-1) - correct[0].mean(-1))

    def _second_shares(self) -> NDArray[np.float64]:
        """Of correct images by task, in the second run: log odds that are moved by some amount."""
        odds, mean = special.logit(SHARES) + UNEVEN, np.mean(SHARES) + self.difference
        moved = optimize.brentq(lambda by: special.expit(odds + by).mean() - mean, -20, 20)
        return np.asarray(special.expit(odds + moved))

    def _chances(
        self, shares: NDArray[np.float64], tasks: NDArray[np.int64], hardness: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Of each prompt's images to be correct: beta-distributed with this mean and correlation."""
        if self.correlation == 0:
            return np.broadcast_to(shares[tasks], hardness.shape)
        size = (1 - self.correlation) / self.correlation
        middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
        table = stats.beta.ppf(middles, shares[:, None] * size, (1 - shares[:, None]) * size)
        table += (shares - table.mean(-1))[:, None]  # what the quantiles lack of the mean
        return np.asarray(table[tasks, (hardness * QUANTILES).astype(int)])
