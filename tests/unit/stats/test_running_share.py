"""A share while blocks keep coming: exact sums, and an interval that covers."""

import numpy as np
import pytest

from sar_eval.stats.intervals import Z95, wilson_interval
from sar_eval.stats.running_share import RunningShare


def _share(hits: list[int], draws: list[int], prompts: int) -> RunningShare:
    share = RunningShare()
    for hit, drawn in zip(hits, draws, strict=True):
        share.add(hit, drawn, prompts)
    return share


def test_nothing_is_known_of_no_draws() -> None:
    assert RunningShare().value is RunningShare().interval() is None
    assert _share([0], [0], 4).interval() is None


def test_one_block_counts_its_prompts() -> None:
    assert _share([30], [100], 25).interval() == wilson_interval(0.3, 25)


def test_running_sums_give_the_ratio_estimators_variance() -> None:
    rng = np.random.default_rng(0)
    draws = rng.integers(50, 100, 40)
    hits = rng.binomial(draws, rng.beta(3, 7, 40))
    share = _share(hits.tolist(), draws.tolist(), 25)
    p = hits.sum() / draws.sum()
    variance = 40 / 39 * ((hits - p * draws) ** 2).sum() / draws.sum() ** 2
    student = 2.0226909  # of 39 degrees of freedom, by R's qt(0.975, 39)
    size = p * (1 - p) / variance * (Z95 / student) ** 2
    assert share.interval() == pytest.approx(wilson_interval(p, size))


def test_blocks_that_happen_to_agree_are_not_believed() -> None:
    """Two blocks of almost one share: their spread says next to nothing."""
    assert _share([30, 31], [100, 100], 25).interval() == wilson_interval(0.305, 50)
    assert _share([30] * 50, [100] * 50, 25).interval() == wilson_interval(0.3, 25 * 50)


@pytest.mark.parametrize(("blocks", "spread"), [(3, 40), (30, 40), (30, 4)])
def test_it_covers_the_truth_in_95_of_100(blocks: int, spread: float) -> None:
    """800 trials: 0.95 +- 0.015; draws of a prompt agree, and blocks differ the more the less `spread`."""
    rng, covered, prompts = np.random.default_rng(1), 0, 16
    for _ in range(800):
        rates = rng.beta(0.3 * spread, 0.7 * spread, blocks)
        kept = 4 * rng.binomial(prompts, rates)
        low, high = _share(kept.tolist(), [4 * prompts] * blocks, prompts).interval() or (1, 0)
        covered += low <= 0.3 <= high
    assert 0.935 <= covered / 800 <= 0.985
