"""Advantages within a group: numbers worked out by hand, and what holds for any rewards."""

import math
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sar_eval.rl.advantages import (
    EPSILON,
    Scale,
    contrast_weights,
    group_advantages,
    has_variance,
    keep_best_and_worst,
    mix_rewards,
)

NAN = math.nan
REWARDS = st.lists(
    st.lists(st.sampled_from([NAN, -1.0, 0.0, 0.125, 0.5, 3.0]), min_size=5, max_size=5),
    min_size=1,
    max_size=4,
)


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def same(left: Tensor, right: Tensor) -> bool:
    return bool(torch.allclose(left, right.to(left.dtype), rtol=1e-12, atol=1e-12, equal_nan=True))


def test_an_advantage_is_the_distance_to_the_mean_in_sample_deviations() -> None:
    # Mean 1/4, squares 9/16 + 3/16 = 3/4, by n - 1: 1/4, so the deviation is 1/2.
    found = group_advantages(tensor([1.0, 0.0, 0.0, 0.0]))
    assert same(found, tensor([0.75, -0.25, -0.25, -0.25]) / (0.5 + EPSILON))


def test_a_picture_without_a_reward_moves_nobody_and_has_advantage_0() -> None:
    found = group_advantages(tensor([NAN, 3.0, 1.0, NAN]))
    assert same(found, tensor([0.0, 1.0, -1.0, 0.0]) / (math.sqrt(2) + EPSILON))


@pytest.mark.parametrize("rewards", [[2.0, NAN, NAN], [NAN, NAN, NAN], [0.25, 0.25, 0.25]])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_group_with_nothing_to_compare_has_advantages_0(rewards: list[float], scale: Scale) -> None:
    assert same(group_advantages(tensor(rewards), scale), torch.zeros(1, 3))


def test_batch_scale_divides_all_groups_by_one_deviation() -> None:
    # All six: mean 2, squares 4 + 0 + 4 + 1 + 1 + 0 = 10, by 5: 2.
    found = group_advantages(tensor([0.0, 2.0, 4.0], [1.0, 3.0, 2.0]), "batch")
    assert same(found, tensor([-2.0, 0.0, 2.0], [-1.0, 1.0, 0.0]) / (math.sqrt(2) + EPSILON))


def test_no_scale_leaves_the_reward_s_unit() -> None:
    assert same(group_advantages(tensor([5.0, 3.0, NAN]), "none"), tensor([1.0, -1.0, 0.0]))


def test_a_floor_keeps_a_judge_s_noise_quiet_and_leaves_real_differences() -> None:
    rewards = tensor([0.500, 0.501, 0.499], [1.0, 0.0, 0.5])  # deviations 0.001 and 0.5
    noisy, real = group_advantages(rewards, floor=0.1).split(1)
    assert same(noisy, tensor([0.0, 0.001, -0.001]) / (0.1 + EPSILON))
    assert same(real, tensor([0.5, -0.5, 0.0]) / (0.5 + EPSILON))


@given(rewards=REWARDS, scale=st.sampled_from(["group", "batch", "none"]))
def test_advantages_of_a_group_sum_to_0_and_order_as_rewards_do(
    rewards: list[list[float]], scale: Scale
) -> None:
    found = group_advantages(torch.tensor(rewards), scale)
    assert torch.isfinite(found).all()
    assert found.sum(-1).abs().max() < 1e-4
    for row, advantages in zip(rewards, found.tolist(), strict=True):
        known = sorted((r, a) for r, a in zip(row, advantages, strict=True) if not math.isnan(r))
        # Alone in a batch, a reward has no deviation, and so no advantage either.
        assert all(a <= b for (_, a), (_, b) in pairwise(known))


def test_rewards_are_rounded_then_normalised_then_weighed() -> None:
    scores = torch.stack([tensor([0.24, 0.26, 0.74]), tensor([10.0, 20.0, 30.0])])
    mixed = mix_rewards(scores, [2.0, 0.5], [False, True], [0.5, 0.0])
    unit = 10 / (10 + EPSILON)
    assert same(mixed, tensor([0.0 - unit / 2, 1.0, 1.0 + unit / 2]))


def test_rounding_makes_near_equal_rewards_equal() -> None:
    scores = tensor([0.101, 0.099, 0.1004])[None]
    assert has_variance(mix_rewards(scores, [1.0], [False], [0.0])).tolist() == [True]
    assert has_variance(mix_rewards(scores, [1.0], [False], [0.05])).tolist() == [False]


def test_one_missing_reward_leaves_the_picture_without_any_and_out_of_the_normalisation() -> None:
    scores = torch.stack([tensor([NAN, 0.0, 2.0]), tensor([100.0, 1.0, 3.0])])
    mixed = mix_rewards(scores, [1.0, 1.0], [True, True], [0.0, 0.0])
    # Of the two left each deviation is sqrt(2), and each reward is 1 off the mean.
    unit = 2 / (math.sqrt(2) + EPSILON)
    assert same(mixed, tensor([NAN, -unit, unit]))


def test_a_reward_of_weight_0_is_only_looked_at() -> None:
    scores = torch.stack([tensor([1.0, 2.0]), tensor([NAN, 5.0])])
    assert same(mix_rewards(scores, [1.0, 0.0], [False, True], [0.0, 0.0]), tensor([1.0, 2.0]))


def test_variance_needs_two_different_rewards() -> None:
    rewards = tensor([1.0, NAN, 1.0], [1.0, 0.0, NAN], [NAN, NAN, NAN], [2.0, NAN, NAN])
    assert has_variance(rewards).tolist() == [False, True, False, False]


def test_best_and_worst_are_kept_and_those_without_a_reward_never() -> None:
    rewards = tensor([0.5, NAN, 0.9, 0.1, 0.4, 0.8], [NAN, 1.0, NAN, NAN, 0.0, NAN])
    assert keep_best_and_worst(rewards, 4).int().tolist() == [[0, 0, 1, 1, 1, 1], [0, 1, 0, 0, 1, 0]]
    assert keep_best_and_worst(rewards, 3).int().tolist() == [[0, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0]]


def test_of_equal_rewards_the_first_are_the_best() -> None:
    assert keep_best_and_worst(tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]), 4).int().tolist() == [
        [1, 0, 1, 0, 1, 1]
    ]
    assert keep_best_and_worst(torch.zeros(1, 5), 2).int().tolist() == [[1, 0, 0, 0, 1]]


@given(rewards=REWARDS, keep=st.integers(1, 6))
def test_as_many_are_kept_as_asked_for_or_known(rewards: list[list[float]], keep: int) -> None:
    found = torch.tensor(rewards)
    kept = keep_best_and_worst(found, keep)
    assert not found[kept].isnan().any()
    assert kept.sum(-1).tolist() == (~found.isnan()).sum(-1).clamp(max=keep).tolist()


@pytest.mark.parametrize("right", [2, 3, 4, 6])
def test_of_binary_rewards_no_other_choice_varies_more(right: int) -> None:
    rewards = torch.tensor([1.0] * right + [0.0] * (8 - right))[torch.randperm(8)]
    best = max(rewards[list(chosen)].var() for chosen in combinations(range(8), 4))
    assert rewards[keep_best_and_worst(rewards[None], 4)[0]].var() == best


def test_advantages_recomputed_inside_the_kept_sum_to_0_and_the_others_have_none() -> None:
    rewards = tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0])
    kept = keep_best_and_worst(rewards, 4)
    assert abs(group_advantages(rewards)[kept].sum()) > 1  # cut out of the whole group's
    advantages = group_advantages(rewards.where(kept, NAN))
    assert abs(advantages.sum()) < 1e-12
    assert not advantages[~kept].any()


def test_tokens_that_guidance_changed_weigh_more_and_the_mean_is_1() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
    conditional = log_probs - torch.tensor([[0.0, 1.0, -0.5, 3.0]])
    # e^d - d - 1 of d = 0, -1, 0.5, -3 orders them 1, 3, 2, 4.
    expected = torch.tensor([[1.0, 9.0, 4.0, 16.0]]) / 7.5
    assert torch.allclose(contrast_weights(log_probs, conditional, 2.0), expected)
    assert torch.equal(contrast_weights(log_probs, conditional, 0.0), torch.ones(1, 4))


def test_without_guidance_all_tokens_weigh_the_same_wherever_they_are() -> None:
    log_probs = torch.randn(2, 16)
    assert torch.allclose(contrast_weights(log_probs, log_probs.clone(), 3.0), torch.ones(2, 16))


def test_unknown_or_infinite_contrasts_give_finite_weights() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    weights = contrast_weights(log_probs, torch.tensor([[NAN, -math.inf, -3.5]]), 2.15)
    assert torch.isfinite(weights).all()
    assert int(weights.argmin()) == 0
    assert int(weights.argmax()) == 1
    assert not weights.requires_grad


def test_the_exponent_of_gcpo_puts_80_percent_of_the_weight_on_40_percent_of_the_tokens() -> None:
    log_probs = torch.zeros(1, 1000)
    weights = contrast_weights(log_probs, -torch.rand(1, 1000), 2.15).sort(descending=True).values
    assert abs(float(weights[0, :400].sum()) / 1000 - 0.8) < 0.002
