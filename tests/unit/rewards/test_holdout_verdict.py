"""When a hold-out stops a run, and which step it calls the best."""

import math

import pytest

from sar_eval.rewards.holdout_verdict import best_step, has_risen, judge_holdout, rewarded_alone, rise
from sar_eval.rewards.pool import RewardSpec
from sar_eval.storage.training_journal import HoldoutRow

UP, DOWN = [0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2]


def _rows(*values: tuple[float, float | None], judge: str = "shapes") -> list[HoldoutRow]:
    """Of steps 0, 10, ...: value and the upper end of the change's interval."""
    return [
        HoldoutRow(
            step=10 * n,
            judge=judge,
            value=value,
            change=None if high is None else high - 0.05,
            change_low=None if high is None else high - 0.1,
            change_high=high,
            n=60,
        )
        for n, (value, high) in enumerate(values)
    ]


def test_a_reward_that_rises_while_the_holdout_falls_stops_the_run() -> None:
    rows = _rows((0.6, None), (0.65, 0.1), (0.4, -0.08))
    found = judge_holdout(rows, {"soft": UP, "other": DOWN})
    assert found.best == 10
    assert found.stop == (
        "step 20: the reward rose (soft +0.200) while the hold-out fell (shapes -0.130, -0.180 to -0.080): "
        "the policy pleases the reward and draws worse; step 10 was the best"
    )


def test_a_fall_with_a_falling_reward_is_damage_and_no_hacking() -> None:
    found = judge_holdout(_rows((0.6, None), (0.4, -0.08)), {"soft": DOWN})
    assert (found.best, found.stop) == (0, "")


@pytest.mark.parametrize(("high", "limit"), [(0.01, 0.0), (0.0, 0.0), (-0.02, 0.03), (None, 0.0)])
def test_a_fall_within_its_interval_or_the_limit_goes_on(high: float | None, limit: float) -> None:
    found = judge_holdout(_rows((0.6, None), (0.5, high)), {"soft": UP}, limit)
    assert found.stop == ""


def test_a_fall_counts_if_it_is_seen_in_a_row() -> None:
    once = _rows((0.6, None), (0.5, 0.02), (0.4, -0.08))
    assert not judge_holdout(once, {"soft": UP}, in_a_row=2).stop
    assert not judge_holdout(once[:1] + once[2:], {"soft": UP}, in_a_row=2).stop
    assert judge_holdout([*once, *_rows(*[(0.4, -0.1)] * 4)[3:]], {"soft": UP}, in_a_row=2).stop


def test_any_judge_may_stop_and_the_first_says_which_step_was_best() -> None:
    first = _rows((0.5, None), (0.7, 0.3))
    second = _rows((30.0, None), (20.0, -8.0), judge="colour")
    rows = [row for pair in zip(first, second, strict=True) for row in pair]
    found = judge_holdout(rows, {"soft": UP})
    assert found.best == 10
    assert "colour -8.050" in found.stop
    assert "shapes" not in found.stop
    mended = [
        *rows,
        *_rows((0, 0), (0, 0), (0.6, 0.2)),
        *_rows((0, 0), (0, 0), (29.0, 1.0), judge="colour"),
    ]
    last = [row for row in mended if row.step == 20]
    assert not judge_holdout([*rows, *last], {"soft": UP}).stop


def test_the_earliest_of_equal_steps_is_the_best() -> None:
    assert best_step(_rows((0.5, None), (0.7, 0.2), (0.7, 0.2), (0.6, 0.2))) == 10
    assert best_step([]) == 0


def test_a_rise_is_between_the_first_and_the_last_steps() -> None:
    assert rise([]) == rise([0.3]) == rise([math.nan, 0.3]) == 0
    assert rise([0.1, math.nan, 0.4]) == pytest.approx(0.3)
    assert rise([0.0] * 5 + [9.0] * 90 + [1.0] * 5) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "risen"),
    [
        ([0.5, 0.5, 0.5, 0.6, 0.6, 0.6], True),
        (
            [0.50, 0.62, 0.55, 0.52, 0.60, 0.58, 0.51, 0.63, 0.57, 0.56],
            False,
        ),  # +0.012, of a spread of 0.05
        ([0.50, 0.52, 0.55, 0.52, 0.50, 0.68, 0.71, 0.73, 0.67, 0.66], True),
        ([0.7, 0.6, 0.5, 0.4], False),
        ([0.5], False),
        ([math.nan] * 4, False),
        ([0.5, 0.6], True),
    ],
)
def test_a_rise_within_the_noise_of_the_steps_is_none(values: list[float], risen: bool) -> None:
    assert has_risen(values) is risen


def test_judges_that_are_rewarded_watch_nothing() -> None:
    shapes = RewardSpec("a", "shapes", options={"threshold": 0.6})
    hps, clip = (RewardSpec(name, "score", options={"scorers": [name]}) for name in ("hps", "clip"))
    assert rewarded_alone([shapes], [RewardSpec("b", "shapes"), hps])
    assert not rewarded_alone([shapes, clip], [shapes, hps])
    assert not rewarded_alone([shapes], [RewardSpec("b", "shapes", weight=0.0), hps])
