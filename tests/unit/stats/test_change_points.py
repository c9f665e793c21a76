"""Changes of level: found where they are, and at most in 5 % of the series that have none."""

from itertools import pairwise, product

import numpy as np
import pytest
from numpy.typing import NDArray

from sar_eval.stats import change_points
from sar_eval.stats.change_points import balanced_contrasts, find_change_points

Scores = tuple[NDArray[np.float64], NDArray[np.int64]]


def _series(
    rng: np.random.Generator,
    length: int,
    *,
    share: float = 0.6,
    prompts: int = 553,
    images: int = 4,
    correlation: float = 0.4,
    drift: float = 0.0,
    step: float = 0.0,
    at: int = 5,
    slope: float = 0.0,
) -> Scores:
    """A suite like GenEval's at each checkpoint; with `drift` each prompt's chance wanders by itself."""
    tasks = np.arange(prompts) % 6
    a, b = share * (1 / correlation - 1), (1 - share) * (1 / correlation - 1)
    chance = np.repeat(rng.beta(a, b, prompts)[:, None], length, axis=1)
    if drift:
        odds = np.log(chance.clip(1e-6, 1 - 1e-6) / (1 - chance.clip(1e-6, 1 - 1e-6)))
        chance = 1 / (1 + np.exp(-odds - np.cumsum(rng.normal(0, drift, chance.shape), axis=1)))
    moved = np.where(np.arange(length) >= at, step, 0.0) + slope * np.arange(length)
    chance = np.clip(chance + moved, 0, 1)
    return rng.binomial(images, chance) / images, tasks


@pytest.mark.parametrize("length", [1, 2, 3, 10, 60])
def test_contrasts_are_balanced_from_neighbours_to_all_there_is_room_for(length: int) -> None:
    contrasts = balanced_contrasts(length)
    assert len(set(contrasts)) == len(contrasts)
    assert all(0 <= first < at < end <= length for first, at, end in contrasts)
    assert all(at - first == end - at for first, at, end in contrasts)
    for at in range(1, length):
        sizes = [end - at for _, place, end in contrasts if place == at]
        assert sizes[0] == 1
        assert sizes[-1] == min(at, length - at)
        assert all(b <= 2 * a for a, b in pairwise(sizes))


def test_two_checkpoints_have_the_p_of_all_flips_of_signs() -> None:
    rng = np.random.default_rng(3)
    gains = rng.normal(0.7, 0.5, 10)
    scores = np.stack([np.zeros(10), gains], axis=1)
    flipped = [abs(np.dot(signs, gains)) for signs in product((-1, 1), repeat=10)]
    exact = float(np.mean(np.array(flipped) >= abs(gains.sum()) - 1e-9))
    (found,) = find_change_points(scores, np.zeros(10, int))
    assert found.p == pytest.approx(exact, abs=0.004)
    assert (found.first, found.at, found.end) == (0, 1, 2)
    assert found.difference == pytest.approx(gains.mean())


def test_the_level_is_the_unweighted_mean_of_tasks() -> None:
    scores = np.array([[0.0, 1.0]] * 30 + [[0.0, 0.0]] * 90)
    tasks = np.array([0] * 30 + [1] * 90)
    (found,) = find_change_points(scores, tasks)
    assert found.difference == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_finds_a_step_and_the_way_back_where_they_are() -> None:
    scores, tasks = _series(np.random.default_rng(1), 12, step=0.1, at=4)
    scores[:, 9:] = _series(np.random.default_rng(1), 3)[0]
    found = find_change_points(scores, tasks)
    assert [change.at for change in found] == [4, 9]
    assert found[0].low > 0.03
    assert found[1].high < -0.03


def test_a_climb_of_small_steps_is_found_although_no_two_neighbours_differ() -> None:
    scores, tasks = _series(np.random.default_rng(2), 10, slope=0.01)
    found = find_change_points(scores, tasks)
    assert found
    assert all(change.end - change.first > 2 for change in found)
    assert all(change.difference > 0 for change in found)


@pytest.mark.parametrize("value", [0.0, 0.7, 1e300])
def test_equal_scores_have_no_change(value: float) -> None:
    assert find_change_points(np.full((20, 6), value), np.arange(20) % 2) == []


@pytest.mark.parametrize("prompts", [0, 1, 2, 4])
def test_few_prompts_show_nothing(prompts: int) -> None:
    scores = np.repeat([[0.0, 0.0, 1.0, 1.0]], prompts, axis=0).reshape(prompts, 4)
    assert find_change_points(scores, np.zeros(prompts, int)) == []


def test_many_prompts_are_flipped_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, tasks = _series(np.random.default_rng(4), 6, step=0.08, at=3)
    alone = find_change_points(scores, tasks)
    monkeypatch.setattr(change_points, "MAX_UNITS", 100)
    (grouped,) = find_change_points(scores, tasks)
    assert [change.at for change in alone] == [grouped.at] == [3]
    assert grouped.difference == pytest.approx(alone[0].difference)
    assert grouped.low == pytest.approx(alone[0].low, abs=0.01)


def _alarms(monkeypatch: pytest.MonkeyPatch, number: int, length: int, **suite: float) -> float:
    """Share of simulated series in which a change is found."""
    monkeypatch.setattr(change_points, "FLIPS", 999)
    rng = np.random.default_rng(17)
    return float(
        np.mean([bool(find_change_points(*_series(rng, length, **suite), n)) for n in range(number)])
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "suite"),
    [
        (2, {}),
        (10, {}),
        (10, {"share": 0.05}),
        (10, {"share": 0.97}),
        (10, {"images": 1, "share": 0.05}),
        (10, {"prompts": 60, "share": 0.9}),
        (10, {"share": 0.5, "drift": 0.5}),
        (30, {"prompts": 200}),
    ],
    ids=str,
)
def test_at_most_5_percent_of_series_without_a_change_have_one(
    monkeypatch: pytest.MonkeyPatch, length: int, suite: dict[str, float]
) -> None:
    number = 600
    # 5 % and three standard errors of the simulation.
    assert _alarms(monkeypatch, number, length, **suite) <= 0.05 + 3 * (0.05 * 0.95 / number) ** 0.5


@pytest.mark.slow
def test_a_step_of_5_points_in_10_checkpoints_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_points, "FLIPS", 999)
    rng = np.random.default_rng(5)
    found = [[c.at for c in find_change_points(*_series(rng, 10, step=0.05), n)] for n in range(200)]
    assert np.mean([bool(changes) for changes in found]) == 1
    assert np.mean([changes == [5] for changes in found]) > 0.9


@pytest.mark.slow
def test_intervals_of_found_steps_contain_the_true_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_points, "FLIPS", 999)
    rng = np.random.default_rng(6)
    changes = [find_change_points(*_series(rng, 8, share=0.4, step=0.1, at=4), n)[0] for n in range(200)]
    # Clipping at 1 takes some of the step.
    true = np.mean(
        [np.diff(_series(rng, 2, share=0.4, step=0.1, at=1)[0].mean(axis=0)) for _ in range(400)]
    )
    assert np.mean([change.low <= true <= change.high for change in changes if change.at == 4]) > 0.95
