"""From verdicts to what is learnt: what is kept, what is lost, what a placebo is."""

import math

import pytest
import torch

from sar_eval.decoding.rollouts import Rollout
from sar_eval.rewards.pool import RewardSpec
from sar_eval.rl.groups import (
    Group,
    all_verdicts,
    best_and_worst,
    groups_of,
    minibatches,
    rank_pictures,
    samples_of,
)
from sar_eval.rl.grpo_recipe import GrpoOptions
from sar_eval.rl.rollouts import JudgedRollouts
from sar_eval.types import Draw, Generation, Prompt, Verdict

ONE, TWO = RewardSpec("one", "shapes"), RewardSpec("two", "shapes", weight=0.5)


def _groups(*rows: dict[str, list[float | None]]) -> list[Group]:
    def verdict(n: int, score: float | None) -> Verdict:
        return Verdict(f"p/{n}", "shapes", "1", score=score, error=None if score is not None else "lost")

    return [
        Group(n, {k: [verdict(i, s) for i, s in enumerate(v)] for k, v in row.items()}, 0.5, 3.0, 0)
        for n, row in enumerate(rows)
    ]


def test_rewards_are_added_by_weight_and_compared_within_their_group() -> None:
    groups = _groups({"one": [0.0, 1.0], "two": [1.0, 1.0]}, {"one": [0.0, 0.0], "two": [0.0, 4.0]})
    ranking = rank_pictures(groups, [ONE, TWO], GrpoOptions(steps=1, group=2, warmup=0), 1)
    assert ranking.rewards.tolist() == [[0.5, 1.5], [0.0, 2.0]]
    assert ranking.advantages[0].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5], rel=1e-3)
    assert ranking.figures["reward"] == 1.0
    assert ranking.figures["reward/two"] == 1.5
    assert ranking.figures["varied/one"] == ranking.figures["varied/two"] == 0.5
    assert ranking.figures["varied"] == 1.0


def test_the_journal_shows_rewards_as_judges_give_them() -> None:
    """Normalised in its group, the mean of any reward is 0 at every step."""
    groups = _groups({"one": [0.2, 0.4]}, {"one": [0.6, 0.8]})
    specs = [RewardSpec("one", "shapes", weight=2.0, normalise=True)]
    ranking = rank_pictures(groups, specs, GrpoOptions(steps=1, group=2, warmup=0), 1)
    assert float(ranking.rewards.mean()) == pytest.approx(0)
    assert ranking.figures["reward"] == pytest.approx(1.0)


def test_the_best_and_the_worst_are_kept_and_compared_with_each_other() -> None:
    groups = _groups({"one": [0.0, 0.4, 0.5, 1.0]})
    ranking = rank_pictures(groups, [ONE], GrpoOptions(steps=1, group=4, keep=2, warmup=0), 1)
    assert ranking.kept.tolist() == [[True, False, False, True]]
    assert float(ranking.advantages.sum()) == pytest.approx(0)
    assert best_and_worst(ranking, 0) == (3, 0)


def test_a_picture_without_a_reward_teaches_nothing() -> None:
    groups = _groups({"one": [None, 0.2, 0.8]}, {"one": [None, None, None]})
    ranking = rank_pictures(groups, [ONE], GrpoOptions(steps=1, group=3, warmup=0), 1)
    assert ranking.kept.tolist() == [[False, True, True], [False, False, False]]
    assert ranking.advantages[:, 0].tolist() == [0, 0]
    assert ranking.figures["lost"] == pytest.approx(4 / 6)
    assert best_and_worst(ranking, 1) == (-1, -1)
    assert math.isfinite(ranking.figures["reward"])


@pytest.mark.parametrize("drop", [True, False])
def test_groups_of_equal_rewards_are_left_out_unless_asked_for(drop) -> None:
    groups = _groups({"one": [0.5, 0.5]}, {"one": [0.0, 1.0]})
    options = GrpoOptions(steps=1, group=2, drop_equal_groups=drop, warmup=0)
    ranking = rank_pictures(groups, [ONE], options, 1)
    assert ranking.kept[0].tolist() == [not drop, not drop]
    assert ranking.advantages[0].tolist() == [0, 0]


def test_a_placebo_permutes_within_groups_by_seed_and_step() -> None:
    rows = [{"one": [float(n + g) for n in range(8)]} for g in range(3)]
    options = GrpoOptions(steps=1, group=8, placebo=True, warmup=0)
    ranking = rank_pictures(_groups(*rows), [ONE], options, 1)
    assert torch.equal(ranking.rewards.sort(1).values, torch.tensor([r["one"] for r in rows]).double())
    assert ranking.rewards[0].tolist() != rows[0]["one"]
    again = rank_pictures(_groups(*rows), [ONE], options, 1)
    other = rank_pictures(_groups(*rows), [ONE], options, 2)
    assert torch.equal(ranking.rewards, again.rewards)
    assert not torch.equal(ranking.rewards, other.rewards)
    assert ranking.figures["reward/one"] == other.figures["reward/one"]  # what the judge said stays


def test_a_placebo_gives_no_reward_to_a_picture_that_was_not_drawn() -> None:
    row = [None, *(float(n) for n in range(7))]
    options = GrpoOptions(steps=1, group=8, placebo=True, warmup=0)
    for step in range(8):
        ranking = rank_pictures(_groups({"one": row}), [ONE], options, step)
        assert ranking.rewards[0].isnan().tolist() == [True] + [False] * 7
        assert sorted(ranking.rewards[0, 1:].tolist()) == row[1:]


def _rollout(*tokens: int, error: str | None = None) -> Rollout:
    return Rollout(Draw(Prompt("p", "a star"), 0, 0), Generation("p/0", 0, tokens, error=error))


def test_a_group_without_two_pictures_has_no_diversity() -> None:
    rollouts = [_rollout(1, 2), _rollout(1, 3), _rollout(error="lost"), _rollout(error="lost")]
    first, second = groups_of(JudgedRollouts(rollouts, {}, 0.0, 0.0), (0, 1), 2)
    assert (first.diversity, first.distinct) == (0.5, 2.0)
    assert math.isnan(second.diversity)
    assert math.isnan(second.distinct)
    ranking = rank_pictures(_groups({"one": [0.0, 1.0]}), [ONE], GrpoOptions(steps=1, group=2, warmup=0), 1)
    assert ranking.figures["diversity"] == 0.5


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 4, 5, 100])
def test_the_pictures_of_a_minibatch_do_not_depend_on_the_ranks(ranks, size) -> None:
    """Each picture is in one minibatch of one rank; which one, its place in the step says."""
    rows = [{"one": [0.0, 1.0, 2.0, None]}, {"one": [1.0] * 4}, {"one": [3.0, 0.0, 0.0, 1.0]}] * 2
    options = GrpoOptions(steps=1, group=4, warmup=0)
    ranking = rank_pictures(_groups(*rows), [ONE], options, 1)
    rollouts, total, found = [_rollout(n) for n in range(24)], int(ranking.kept.sum()), []
    for rank in range(ranks):
        positions = range(6)[rank::ranks]
        own = [rollout for n in positions for rollout in rollouts[4 * n : 4 * n + 4]]
        found.append(minibatches(samples_of(own, ranking, positions, 4), total, size))
    together = [
        (sorted(s.rollout.generation.tokens[0] for own, _ in each for s in own), each[0][1])
        for each in zip(*found, strict=True)
    ]
    kept = [n for n in range(24) if ranking.kept.flatten()[n]]
    assert [n for numbers, _ in together for n in numbers] == kept
    assert all(len(numbers) == of_all <= (size or total) for numbers, of_all in together)


def test_verdicts_of_all_groups_are_by_reward() -> None:
    rows = [{"one": [0.0, 1.0], "two": [0.0, 0.0]}, {"one": [0.5, None], "two": [0.0, 0.0]}]
    found = all_verdicts(_groups(*rows), [ONE])
    assert list(found) == ["one"]
    assert [v.score for v in found["one"]] == [0.0, 1.0, 0.5, None]
