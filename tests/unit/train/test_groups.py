"""From verdicts to what is learnt: what is kept, what is lost, what a placebo is."""

import math

import pytest
import torch

from sar_eval.train.groups import Group, all_verdicts, best_and_worst, rank_pictures
from sar_eval.train.grpo_recipe import GrpoOptions
from sar_eval.train.rewards import RewardSpec
from sar_eval.types import Verdict

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


def test_verdicts_of_all_groups_are_by_reward() -> None:
    found = all_verdicts(_groups({"one": [0.0, 1.0]}, {"one": [0.5, None]}))
    assert [v.score for v in found["one"]] == [0.0, 1.0, 0.5, None]
