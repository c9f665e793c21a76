"""When an engine counts as stale."""

import math

import pytest

from sar_eval.rl.engine_gap import EngineGap, StaleEngine


def test_rounding_grows_with_guidance_and_with_the_dtype() -> None:
    assert EngineGap("float32", 1.0).limit == pytest.approx(1e-3)
    assert EngineGap("float32", 6.0).limit == pytest.approx(1e-3 * math.hypot(6, 5))
    assert EngineGap("bfloat16", 1.0).limit == pytest.approx(0.05)


def test_the_first_gap_is_what_rounding_is_here() -> None:
    gap = EngineGap("bfloat16", 6.0)
    gap.check(0.02)
    gap.check(0.05)
    with pytest.raises(StaleEngine, match=r"off by 0\.061 nats"):
        gap.check(0.061)


def test_a_gap_of_nothing_still_leaves_rounding() -> None:
    gap = EngineGap("float32", 2.0)
    gap.check(0.0)
    gap.check(9e-4)
    with pytest.raises(StaleEngine):
        gap.check(1.1e-3)


@pytest.mark.parametrize("mean", [0.5, math.inf, math.nan])
def test_what_no_rounding_explains_is_stale_at_once(mean) -> None:
    with pytest.raises(StaleEngine, match="does not draw with the weights"):
        EngineGap("bfloat16", 6.0).check(mean)


def test_a_limit_that_was_asked_for_stays() -> None:
    gap = EngineGap("float32", 2.0, max_gap=0.3)
    gap.check(0.0)
    gap.check(0.29)
    with pytest.raises(StaleEngine):
        gap.check(0.31)
