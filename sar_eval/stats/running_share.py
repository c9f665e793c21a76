"""The share of draws that something holds for, with its interval, while blocks of draws keep coming."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import stdtrit

from sar_eval.stats.intervals import Z95, wilson_interval

FEW_BLOCKS = 20  # the spread between fewer is not well known


@dataclass(slots=True)
class RunningShare:
    """Sums over blocks that give share and interval at any time, in constant memory.

    Attributes:
        hits: draws that it holds for.
        draws, prompts, blocks: that were counted.
        hits_squared, products, draws_squared: sums over blocks of hits**2, hits * draws and draws**2.
    """

    hits: int = 0
    draws: int = 0
    prompts: int = 0
    blocks: int = 0
    hits_squared: int = 0
    products: int = 0
    draws_squared: int = 0

    def add(self, hits: int, draws: int, prompts: int) -> None:
        """Count one block."""
        self.hits += hits
        self.draws += draws
        self.prompts += prompts
        self.blocks += 1
        self.hits_squared += hits * hits
        self.products += hits * draws
        self.draws_squared += draws * draws

    @property
    def value(self) -> float | None:
        """The share; None before the first draw."""
        return self.hits / self.draws if self.draws else None

    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval for the effective sample size; None before the first draw."""
        if not self.draws:
            return None
        return wilson_interval(self.hits / self.draws, self._effective_sample_size())

    def _effective_sample_size(self) -> float:
        """Independent draws with the same variance: p (1 - p) / var(p) (Kish 1965).

        The variance is the ratio estimator's over blocks (Cochran, Sampling Techniques, 1977, section 6.3);
        the size is made smaller for its being an estimate from few blocks (Korn and Graubard, Survey
        Methodology 24, 1998). Where blocks do not differ, or there is one, it cannot be estimated:
        prompts count as independent then, and their draws as one. So they do where few blocks hardly
        differ.
        """
        if not (variance := self._variance()):
            return max(1, self.prompts)
        share = self.hits / self.draws
        size = share * (1 - share) / variance * (Z95 / float(stdtrit(self.blocks - 1, 0.975))) ** 2
        most = self.draws if self.blocks >= FEW_BLOCKS else max(1, self.prompts)
        return min(max(size, self.blocks), most)

    def _variance(self) -> float:
        """Of the share; 0 where blocks do not differ, or there is one."""
        if self.blocks < 2 or not 0 < self.hits < self.draws:
            return 0.0
        # Sum of (hits - share * draws)**2, times draws**2 so that whole numbers stay exact.
        hits, draws = self.hits, self.draws
        squares = (
            self.hits_squared * draws * draws
            - 2 * hits * draws * self.products
            + hits * hits * self.draws_squared
        )
        return self.blocks / (self.blocks - 1) * squares / draws**4
