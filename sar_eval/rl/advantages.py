"""From rewards to advantages: which picture of a group is better than its siblings, and by how much.

P groups of G pictures; a group is the pictures of one prompt. NaN is no reward (a draw or a judge failed):
such a picture moves no mean and no deviation, is never kept, and has advantage 0. All other rewards are
finite. The formulas are those of GRPO (https://arxiv.org/abs/2402.03300) as TRL 1.16 computes them.

To train on a part of each group, recompute the advantages inside it, or they no longer sum to zero:

    kept = keep_best_and_worst(rewards, 4)
    advantages = group_advantages(rewards.where(kept, torch.nan))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]

EPSILON = 1e-4  # added to every deviation that is divided by, as in TRL
_LARGEST_LOG_RATIO = 20.0  # of a token's two log-probabilities; e^20 still has room in float32


def mix_rewards(
    scores: Tensor, weights: Sequence[float], normalise: Sequence[bool], quantise: Sequence[float]
) -> Tensor:
    """Add K rewards.

    A picture that lacks any reward of weight other than 0 has none at all, and counts in no group's mean.
    (TRL adds what is left, so that a judge's failure looks like a reward of 0.) Apart from that, all
    rewards normalised and then `scale="batch"` is TRL's `normalize_then_sum`; none normalised is its
    `sum_then_normalize`.

    Args:
        scores: `[K, P, G]`.
        weights: K factors.
        normalise: K times, whether to take (score - mean) / (deviation + EPSILON) within each group first,
            so that rewards on different scales weigh what `weights` says. Scores that are nearly equal
            become as loud as any; `quantise` keeps them quiet.
        quantise: K times, the step that scores are rounded to before anything else, in the reward's unit,
            so that differences which mean nothing are none; 0 leaves them as they are.

    Returns:
        `[P, G]`.
    """
    used = [k for k, weight in enumerate(weights) if weight != 0]
    missing = scores[used].isnan().any(0)
    mixed = torch.zeros_like(scores[0])
    for k in used:
        reward = scores[k]
        if step := quantise[k]:
            reward = (reward / step).round() * step
        reward = reward.masked_fill(missing, torch.nan)
        if normalise[k]:
            reward = _centre(reward) / (_deviation(reward) + EPSILON)
        mixed += weights[k] * reward
    return mixed.masked_fill(missing, torch.nan)


def group_advantages(rewards: Tensor, scale: Scale = "group", floor: float = 0.0) -> Tensor:
    """How much better each picture is than the mean of its group, in deviations.

    The advantage is (reward - group's mean) / (max(deviation, floor) + EPSILON). With floor 0 that is
    TRL's. Where all pictures of a group are nearly as good, their deviation is the judge's noise, and
    dividing by it makes that noise as loud as a real difference (Pref-GRPO's "illusory advantage",
    https://arxiv.org/abs/2508.20751): a floor, in the reward's unit, keeps it quiet.

    Args:
        rewards: `[P, G]`; of all ranks where `scale` is "batch".
        scale: "group" divides by the deviation within the group, "batch" by that of all rewards
            (https://arxiv.org/abs/2508.08221), "none" by nothing (Dr. GRPO, https://arxiv.org/abs/2503.20783).
        floor: the smallest deviation to divide by.

    Returns:
        `[P, G]`; 0 without a reward, or without a second one in the group to compare it with.
    """
    advantages = _centre(rewards)
    if scale != "none":
        deviation = _deviation(rewards) if scale == "group" else _deviation(rewards.flatten())
        advantages = advantages / (deviation.clamp(min=floor) + EPSILON)
    return advantages.nan_to_num(nan=0.0)


def has_variance(rewards: Tensor) -> Tensor:
    """Which groups have two different rewards, and so teach anything: boolean `[P]` for rewards `[P, G]`.

    Differences are not compared to a tolerance: `quantise` in `mix_rewards` is the place for one.
    """
    missing = rewards.isnan()
    highest = rewards.masked_fill(missing, -torch.inf).amax(-1)
    lowest = rewards.masked_fill(missing, torch.inf).amin(-1)
    return highest > lowest


def keep_best_and_worst(rewards: Tensor, keep: int) -> Tensor:
    """Choose the pictures of each group that differ most: half the best, half the worst.

    The subset of highest variance is always some of the best and some of the worst, and of rewards 0 and
    1 half of each, if there are as many (PODS, https://arxiv.org/abs/2504.13818). Of equal rewards the
    first are the best. An odd `keep` has one more of the best. A group with no more than `keep` rewards
    keeps all.

    Args:
        rewards: `[P, G]`.
        keep: pictures a group.

    Returns:
        Boolean `[P, G]`.
    """
    known = ~rewards.isnan()
    order = rewards.masked_fill(~known, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)  # 0 is the best, and those without a reward come last
    worst = keep // 2
    return known & ((rank < keep - worst) | (rank >= known.sum(-1, keepdim=True) - worst))


def contrast_weights(log_probs: Tensor, conditional: Tensor, strength: float) -> Tensor:
    """Weigh a picture's tokens by how much guidance changed them, a sign that the prompt matters there.

    After GCPO (https://arxiv.org/abs/2605.29198), whose code ranks tokens by e^d - d - 1, d the difference
    of a token's log-probabilities under two prompts, and weighs them by a power of the rank. There d is
    negative - prompted; here it is prompted - guided, which is (1 - s)(prompted - negative) but for
    normalisers, so no third forward pass is needed. Without guidance d is 0 and all weights are 1.

    Args:
        log_probs: `[B, N]` of the sampled tokens under guidance.
        conditional: `[B, N]` of the same under the prompted branch alone; NaN counts as no difference.
        strength: exponent of the rank. 0 weighs all tokens alike; GCPO's 2.15 gives 80 % of the weight to
            the first 40 %.

    Returns:
        Weights `[B, N]` without gradient, of mean 1 in each picture.
    """
    difference = (conditional - log_probs).detach().nan_to_num(nan=0.0)
    difference = difference.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    contrast = difference.exp() - difference - 1
    # Equal contrasts share the mean of their ranks; otherwise weights would follow the raster order.
    ordered = contrast.sort(-1).values
    below = torch.searchsorted(ordered, contrast)
    up_to = torch.searchsorted(ordered, contrast, right=True)
    weights = ((below + up_to + 1) / (2 * contrast.shape[-1])).pow(strength).to(log_probs.dtype)
    return weights / weights.mean(-1, keepdim=True)


def _centre(rewards: Tensor) -> Tensor:
    return rewards - rewards.nanmean(-1, keepdim=True)


def _deviation(rewards: Tensor) -> Tensor:
    """Sample standard deviation (n - 1) along the last axis, which stays; NaN with fewer than 2 rewards."""
    squares = _centre(rewards).square().nansum(-1, keepdim=True)
    count = (~rewards.isnan()).sum(-1, keepdim=True)
    return (squares / (count - 1).masked_fill(count < 2, 0)).sqrt().masked_fill(count < 2, torch.nan)
