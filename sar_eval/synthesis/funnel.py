"""The funnel of a set: how many of its draws are left after each step, as shares with 95 % intervals.

Draws of a prompt are alike and prompts of a block may be, so blocks are what is counted as independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from sar_eval.stats.intervals import Z95, wilson_interval
from sar_eval.storage.set_rows import BlockRecord

FILTERED = "filtered: "  # before the clause, in a record


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """What is left of all draws after a step.

    Attributes:
        name: of the step; a clause of the filter as written.
        draws: left after it.
        share: of all draws, 0 to 1.
        low, high: a 95 % interval of the share, for further prompts like these.
    """

    name: str
    draws: int
    share: float
    low: float
    high: float


def funnel(records: Iterable[BlockRecord], clauses: Sequence[str] = ()) -> list[FunnelStep]:
    """The steps of a set, from all draws to those kept; memory does not grow with the records.

    A draw that fails several clauses is counted by the one that decided. Clauses that only records have
    make a step "other clauses", so that the steps always end at what is kept.

    Args:
        records: of committed blocks, in any order.
        clauses: of the filter, in the order in which they are shown.

    Returns:
        "draws", "drawn", "judged", a step for each clause, "best of its prompt" and "kept"; nothing if
        there are no draws.
    """
    clauses = list(dict.fromkeys(clauses))
    names = ["draws", "drawn", "judged", *clauses, "other clauses", "best of its prompt", "kept"]
    steps = [_Moments() for _ in names]
    for record in records:
        for step, left in zip(steps, _left(record, clauses), strict=True):
            step.add(record, left)
    if not steps[0].draws:
        return []
    found = [step.named(name) for name, step in zip(names, steps, strict=True)]
    others = names.index("other clauses", 3 + len(clauses))
    if found[others].draws == found[others - 1].draws:
        del found[others]
    return found


def _left(record: BlockRecord, clauses: Sequence[str]) -> Iterator[int]:
    """Draws of a block that are left after each step."""
    fates = record.fates
    filtered = sum(number for fate, number in fates.items() if fate.startswith(FILTERED))
    yield (left := record.draws)
    for fate in ("failed", "unjudged", *(FILTERED + clause for clause in clauses)):
        yield (left := left - fates.get(fate, 0))
    yield (left := record.draws - record.lacking - filtered)
    for fate in ("outranked", "duplicate"):
        yield (left := left - fates.get(fate, 0))


@dataclass(slots=True)
class _Moments:
    """Sums over blocks of draws m and of those left y, in whole numbers: nothing is lost to rounding."""

    blocks: int = 0
    prompts: int = 0
    draws: int = 0
    left: int = 0
    left_left: int = 0
    left_draws: int = 0
    draws_draws: int = 0

    def add(self, record: BlockRecord, left: int) -> None:
        """One more block."""
        self.blocks += 1
        self.prompts += record.prompts
        self.draws += record.draws
        self.left += left
        self.left_left += left * left
        self.left_draws += left * record.draws
        self.draws_draws += record.draws * record.draws

    def named(self, name: str) -> FunnelStep:
        """The step with Wilson's interval for the effective sample size."""
        share = self.left / self.draws
        return FunnelStep(name, self.left, share, *wilson_interval(share, self._effective_draws()))

    def _effective_draws(self) -> float:
        """How many independent draws would make the share as certain: p (1 - p) / var(p).

        The variance is the ratio estimator's over blocks, B / (B - 1) sum (y - p m)^2 / M^2 (Cochran,
        Sampling Techniques, 1977, section 6.3), and the size is made smaller for the variance being
        estimated from few blocks (Korn and Graubard, Survey Methodology 24, 1998). Where there is no
        variance to see, prompts are counted.
        """
        whole, kept = self.draws, self.left
        squares = (
            self.left_left * whole**2 - 2 * kept * whole * self.left_draws + kept**2 * self.draws_draws
        )
        if self.blocks < 2 or not squares:
            return float(self.prompts)
        freedom = self.blocks - 1
        variance = self.blocks / freedom * (squares / whole**4)
        size = kept / whole * (1 - kept / whole) / variance
        student = float(stdtrit(freedom, 0.975))
        return min(float(whole), max(float(self.blocks), size * (Z95 / student) ** 2))
