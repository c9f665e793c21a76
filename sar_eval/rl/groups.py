"""From the verdicts of a step's groups to advantages, and to the figures that the journal has of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sar_eval.decoding.rollouts import Rollout
from sar_eval.rewards.pool import RewardSpec, scores
from sar_eval.rl.advantages import group_advantages, has_variance, keep_best_and_worst, mix_rewards
from sar_eval.rl.grpo_recipe import GrpoOptions
from sar_eval.rl.probe import diversity
from sar_eval.rl.rollouts import JudgedRollouts
from sar_eval.types import Verdict


@dataclass(frozen=True, slots=True)
class Group:
    """The pictures of one prompt, as every rank knows them: their tokens and pixels stay on one rank.

    Attributes:
        position: of the prompt in the step.
        verdicts: by reward's name, in the order of the draws, without evidence.
        diversity: share of places at which two pictures differ, mean over pairs; NaN without a pair.
        distinct: codes that a picture has, mean over pictures; NaN without one.
        out_of_range: text tokens that were drawn.
    """

    position: int
    verdicts: dict[str, list[Verdict]]
    diversity: float
    distinct: float
    out_of_range: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a step teaches.

    Attributes:
        rewards: float64 `[P, G]`; NaN where a picture has none.
        kept: boolean `[P, G]`, the pictures to train on.
        advantages: float64 `[P, G]`, among those kept; 0 elsewhere.
        figures: for the journal, by its names.
    """

    rewards: Tensor
    kept: Tensor
    advantages: Tensor
    figures: dict[str, float]


def groups_of(judged: JudgedRollouts, positions: Sequence[int], size: int) -> list[Group]:
    """The groups of a rank's rollouts; `positions` are those of their prompts in the step."""
    return [
        _group(judged, position, slice(number * size, (number + 1) * size))
        for number, position in enumerate(positions)
    ]


def _group(judged: JudgedRollouts, position: int, part: slice) -> Group:
    drawn = [r.generation for r in judged.rollouts[part] if r.generation.error is None]
    return Group(
        position,
        {name: [replace(v, evidence=None) for v in every[part]] for name, every in judged.verdicts.items()},
        diversity([generation.tokens for generation in drawn]),
        _mean([len(set(generation.tokens)) for generation in drawn]),
        sum(generation.out_of_range_tokens for generation in drawn),
    )


def _mean(values: Sequence[float]) -> float:
    """Of the numbers among them; NaN if there is none."""
    return float(torch.tensor(values, dtype=torch.float64).nanmean())


def all_verdicts(groups: Sequence[Group], specs: Sequence[RewardSpec]) -> dict[str, list[Verdict]]:
    """The verdicts of all groups by the names of some rewards."""
    return {spec.name: [v for group in groups for v in group.verdicts[spec.name]] for spec in specs}


def rank_pictures(
    groups: Sequence[Group], specs: Sequence[RewardSpec], options: GrpoOptions, step: int
) -> Ranking:
    """Mix the rewards of a step's groups and say what is learnt from.

    Args:
        groups: of all ranks, in the order of their positions.
        specs: of the rewards.
        options: of the recipe.
        step: for the placebo's permutations.
    """
    single = torch.tensor(
        [[scores(group.verdicts[spec.name]) for group in groups] for spec in specs], dtype=torch.float64
    )
    rewards = _mixed(single, specs, [spec.normalise for spec in specs])
    if options.placebo:
        rewards = torch.stack([_permuted(row, options.seed, step, n) for n, row in enumerate(rewards)])
    kept = keep_best_and_worst(rewards, options.keep or options.group)
    if options.drop_equal_groups:
        kept &= has_variance(rewards)[:, None]
    among = rewards.where(kept, torch.nan)
    advantages = group_advantages(among, options.scale, options.floor)
    return Ranking(rewards, kept, advantages, _figures(groups, specs, single, rewards, advantages, kept))


def _mixed(single: Tensor, specs: Sequence[RewardSpec], normalise: Sequence[bool]) -> Tensor:
    """The weighted sum `[P, G]` of rewards `[K, P, G]`."""
    return mix_rewards(single, [spec.weight for spec in specs], normalise, [s.quantise for s in specs])


def _permuted(rewards: Tensor, seed: int, step: int, position: int) -> Tensor:
    """The rewards of a group in another order; a picture without one, perhaps not even drawn, stays so."""
    known = rewards[~rewards.isnan()]
    order = np.random.default_rng([seed, step, position]).permutation(len(known))
    return rewards.masked_scatter(~rewards.isnan(), known[torch.from_numpy(order)])


def _figures(
    groups: Sequence[Group],
    specs: Sequence[RewardSpec],
    single: Tensor,
    rewards: Tensor,
    advantages: Tensor,
    kept: Tensor,
) -> dict[str, float]:
    found = {
        # As the judges give them: normalised, their mean would be 0 at every step.
        "reward": float(_mixed(single, specs, [False] * len(specs)).nanmean()),
        "varied": float(has_variance(rewards).double().mean()),
        "lost": float(rewards.isnan().double().mean()),
        "kept": float(kept.double().mean()),
        "advantage": float(advantages[kept].abs().mean()) if bool(kept.any()) else 0.0,
        "diversity": _mean([group.diversity for group in groups]),
        "distinct_codes": _mean([group.distinct for group in groups]),
        "out_of_range": float(sum(group.out_of_range for group in groups)),
    }
    for spec, values in zip(specs, single, strict=True):
        found[f"reward/{spec.name}"] = float(values.nanmean())
        found[f"varied/{spec.name}"] = float(has_variance(values).double().mean())
    return found


def best_and_worst(ranking: Ranking, position: int) -> tuple[int, int]:
    """Indices of the best and the worst picture of a group that has a reward, -1 if none has one."""
    row = ranking.rewards[position]
    if bool(row.isnan().all()):
        return -1, -1
    best = row.nan_to_num(nan=-torch.inf).argmax()
    return int(best), int(row.nan_to_num(nan=torch.inf).argmin())


class Sample(NamedTuple):
    """A picture to learn from.

    Attributes:
        rollout: of this rank.
        advantage: among the pictures of its group that are kept.
        place: among all pictures that the step keeps, whichever rank drew them.
    """

    rollout: Rollout
    advantage: float
    place: int


def samples_of(
    rollouts: Sequence[Rollout], ranking: Ranking, positions: Sequence[int], size: int
) -> list[Sample]:
    """The rollouts of a rank that are trained on."""
    places = (ranking.kept.flatten().cumsum(0) - 1).view_as(ranking.kept)
    return [
        Sample(
            rollouts[number * size + index],
            float(ranking.advantages[position, index]),
            int(places[position, index]),
        )
        for number, position in enumerate(positions)
        for index in range(size)
        if bool(ranking.kept[position, index])
    ]


def minibatches(samples: Sequence[Sample], total: int, size: int) -> list[tuple[list[Sample], int]]:
    """A rank's share of each optimiser step, and how many pictures all ranks have in it.

    Pictures are divided by their place, so that a step has the same ones whatever the ranks.

    Args:
        samples: of the rank.
        total: pictures that the step keeps on all ranks, at least 1.
        size: of a minibatch at most; 0 for all.
    """
    number = -(-total // (size or total))
    ends = [total * n // number for n in range(number + 1)]
    return [
        ([sample for sample in samples if first <= sample.place < end], end - first)
        for first, end in pairwise(ends)
    ]
