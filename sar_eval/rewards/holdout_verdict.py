"""What hold-out results say of a run: go on or stop, and which step was best. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from sar_eval.rewards.pool import RewardSpec
from sar_eval.storage.training_journal import HoldoutRow

SMOOTHED = 5  # steps whose mean reward is one number


@dataclass(frozen=True, slots=True)
class HoldoutVerdict:
    """After an evaluation.

    Attributes:
        best: the step with the highest score of the first judge; the earliest of equal ones.
        stop: why training must stop; "" if it may go on.
    """

    best: int
    stop: str = ""


def judge_holdout(
    rows: Sequence[HoldoutRow],
    rewards: Mapping[str, Sequence[float]],
    stop_if_falls: float = 0.0,
    in_a_row: int = 1,
) -> HoldoutVerdict:
    """Stop a run whose reward rises while a hold-out judge falls: it has learned to please the reward.

    A judge falls if the whole 95 % interval of its paired change to step 0 lies below `-stop_if_falls`.
    Where no reward rises, a falling judge means damage (too high a rate, say), which the page tells.

    Args:
        rows: of all evaluations so far, in order of steps, each step's in the order of the judges.
        rewards: mean of every step so far, by reward, before normalisation; those of positive weight.
        stop_if_falls: in the judge's unit, at least 0.
        in_a_row: evaluations at the end of which all must find a judge fallen. Each look at the hold-out is
            another chance of a false alarm, of 2.5 % a judge at most.
    """
    last = rows[-1].step
    fallen = [row for row in rows if row.step == last and _has_fallen(rows, row, stop_if_falls, in_a_row)]
    risen = [name for name, values in rewards.items() if has_risen(values)]
    best = best_step([row for row in rows if row.judge == rows[0].judge])
    if not fallen or not risen:
        return HoldoutVerdict(best)
    facts = "; ".join(f"{row.judge} {_change(row)}" for row in fallen)
    rises = ", ".join(f"{name} {rise(rewards[name]):+.3f}" for name in risen)
    return HoldoutVerdict(
        best,
        f"step {last}: the reward rose ({rises}) while the hold-out fell ({facts}): the policy pleases the "
        f"reward and draws worse; step {best} was the best",
    )


def rise(values: Sequence[float]) -> float:
    """Mean of the last steps less mean of the first, `SMOOTHED` of each or half of all; NaN is left out.

    0 for fewer than two numbers.
    """
    first, last = _ends(values)
    return fmean(last) - fmean(first) if first else 0.0


def has_risen(values: Sequence[float]) -> bool:
    """Whether the rise is more than two of its standard errors: steps draw other prompts, so it varies."""
    first, last = _ends(values)
    if not first:
        return False
    spread = sum(variance(end) / len(end) for end in (first, last) if len(end) > 1)
    return rise(values) > 2 * math.sqrt(spread)


def _ends(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The first and the last steps that are compared; both empty for fewer than two numbers."""
    known = [value for value in values if not math.isnan(value)]
    width = min(SMOOTHED, len(known) // 2)
    return known[:width], known[len(known) - width :] if width else []


def best_step(rows: Sequence[HoldoutRow]) -> int:
    """The step with the highest value of one judge, the earliest of equal ones; 0 if none has a value."""
    scored = [(row.value, -row.step) for row in rows if row.value is not None]
    return -max(scored)[1] if scored else 0


def rewarded_alone(judges: Sequence[RewardSpec], rewards: Sequence[RewardSpec]) -> bool:
    """Whether everything that judges the hold-out is rewarded, too: then nothing independent watches."""
    rewarded = {_identity(spec) for spec in rewards if spec.weight}
    return all(_identity(spec) in rewarded for spec in judges)


def _identity(spec: RewardSpec) -> tuple[str, str]:
    """Other thresholds make no other judge; another scorer of the judge `score` does."""
    return spec.judge, str(spec.options.get("scorers", ""))


def _has_fallen(rows: Sequence[HoldoutRow], row: HoldoutRow, limit: float, in_a_row: int) -> bool:
    looks = [each for each in rows if each.judge == row.judge and each.step <= row.step][-in_a_row:]
    highs = [look.change_high for look in looks if look.change_high is not None]
    return len(highs) == in_a_row and all(high < -limit for high in highs)


def _change(row: HoldoutRow) -> str:
    return f"{row.change:+.3f}, {row.change_low:+.3f} to {row.change_high:+.3f}"
