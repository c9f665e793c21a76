"""Sequential tests: errors under their bound however often one looks, few draws for clear differences."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from sar_eval.runtime.drawing_order import draw_in_order, round_ends
from sar_eval.stats.sequential import (
    ALPHA,
    Rounds,
    bounds,
    decisions,
    log_capital,
    looks,
)
from sar_eval.types import DrawingOrder, Prompt
from tests.simulated_suites import PROMPTS, Pairs

SUITES = 2000
BY_TAG = DrawingOrder(seed=0, by_tag=True)


def _rounds(sizes: tuple[int, ...] = PROMPTS) -> Rounds:
    """Rounds of a suite with tasks of these sizes, in the order of a sequential run."""
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    suite = [Prompt(f"{number:04d}", "", str(task)) for number, task in enumerate(tasks)]
    order = draw_in_order(suite, BY_TAG)
    return Rounds.of(tasks[order].tolist(), round_ends(len(suite), min(sizes)))


def _cost(found: NDArray[np.float64], rounds: Rounds) -> float:
    """The mean share of the suite that is drawn until it is decided."""
    decided = (found != 0).any(-1)
    drawn = np.where(decided, rounds.ends[np.argmax(found != 0, axis=-1)], rounds.ends[-1])
    return float(drawn.mean() / rounds.ends[-1])


def test_a_round_has_all_tasks() -> None:
    rounds = _rounds()
    assert rounds.ends.tolist() == [56, 111, 166, 222, 277, 332, 388, 443, 498, 553]
    assert _rounds((2, 2, 2)).ends.tolist() == [3, 6]  # tenths of six prompts would lack tasks
    assert _rounds((3, 100)).ends.tolist() == [35, 69, 103]
    assert Rounds.of([0, 0, 1, 0, 1], [2, 3, 5]).ends.tolist() == [3, 5]
    assert Rounds.of([0, 1, 0, 1, 0, 0], [2, 4, 6]).ends.tolist() == [2, 6]


def test_the_capital_is_the_product_of_the_bets() -> None:
    """Written out for one bet and two tasks of unequal size, 0.5 supposed."""
    rounds, gains = Rounds.of([0, 1, 1], [3]), np.array([0.8, -0.2, 0.6])
    assert rounds.bets.tolist() == [0.99]
    small, bold = 0.99 / 1.5 / 2, 0.99 / 1.5
    expected = (1 + bold * 0.3) * (1 - small * 0.7) * (1 + small * 0.1)
    assert np.exp(log_capital(gains, rounds, 0.5, 1)) == pytest.approx([expected])
    small, bold = 0.99 / 0.5 / 2, 0.99 / 0.5
    expected = (1 - bold * 0.3) * (1 + small * 0.7) * (1 - small * 0.1)
    assert np.exp(log_capital(gains, rounds, 0.5, -1)) == pytest.approx([expected])


def test_large_suites_bet_small_amounts_too() -> None:
    assert Rounds.of([0] * 100, [100]).bets.tolist() == [0.99]
    assert Rounds.of([0] * 10_000, [10_000]).bets.tolist() == [0.99, 0.495, 0.2475, 0.12375]


def test_what_a_look_says() -> None:
    rounds = _rounds()
    gains = Pairs(-0.15, 0.4, seeds_shared=True).gains(rounds.tasks, 1, seed=1)[0]
    first, second = np.maximum(0, -gains), np.maximum(0, gains)
    found = looks(first[:170], second[:170], rounds, 0.01)
    assert [look.prompts for look in found] == [56, 111, 166]
    last = found[-1]
    assert last.decision == "fail"
    by_task = [
        [scores[:166][rounds.tasks[:166] == task].mean() for task in range(6)] for scores in (first, second)
    ]
    assert (last.first, last.second) == pytest.approx(tuple(np.mean(by_task, axis=1)))
    for look in found:
        assert -1 <= look.low < look.lower <= look.second - look.first <= look.upper < look.high <= 1
    assert looks(first[:55], second[:55], rounds, 0.01) == []


@pytest.mark.parametrize("tasks", [[0], [0, 1], [0, 0]])
def test_a_few_prompts_show_little(tasks: list[int]) -> None:
    rounds, none, all_ = Rounds.of(tasks, [len(tasks)]), np.zeros(len(tasks)), np.ones(len(tasks))
    [gain], [loss] = looks(none, all_, rounds, 0.01), looks(all_, none, rounds, 0.01)
    assert (gain.decision, loss.decision) == ("open", "open")
    assert (gain.upper, loss.lower) == (1.0, -1.0)
    assert gain.lower < -0.5
    assert gain.lower == pytest.approx(-loss.upper)


def test_a_decision_stays() -> None:
    rounds = Rounds.of([0] * 100, round_ends(100, 100))
    gains = np.concatenate([np.full(30, -0.9), np.full(70, 0.9)])
    assert set(decisions(gains, rounds, 0.01)[2:]) == {-1}


def test_equal_runs_pass_with_a_tolerance_and_stay_open_without() -> None:
    rounds = _rounds()
    scores = np.full(553, 0.5)
    assert {look.decision for look in looks(scores, scores, rounds, 0)} == {"open"}
    assert looks(scores, scores, rounds, 0.01)[-1].decision == "pass"


def test_the_bounds_and_the_decision_agree() -> None:
    """-tolerance is refuted exactly when a bound leaves it out."""
    rounds = _rounds()
    for seed, difference in product(range(4), (-0.08, 0.0, 0.08)):
        gains = Pairs(difference, 0.4, seeds_shared=False).gains(rounds.tasks, 1, seed)[0]
        lower, upper = bounds(gains, rounds, ALPHA)
        found = decisions(gains, rounds, 0.02)
        assert ((lower > -0.02) == (found == 1)).all()
        assert ((upper < -0.02) == (found == -1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("seeds_shared", [False, True])
@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.03])
def test_errors_stay_below_five_percent_at_the_boundary(tolerance: float, seeds_shared: bool) -> None:
    """A loss of exactly the tolerance, looked at after every round: either answer would be wrong."""
    rounds = _rounds()
    for seed, correlation in enumerate((0.0, 0.2, 0.4, 0.6, 0.8)):
        gains = Pairs(-tolerance, correlation, seeds_shared).gains(rounds.tasks, SUITES, seed)
        found = decisions(gains, rounds, tolerance)[:, -1]
        assert np.mean(found == 1) <= ALPHA
        assert np.mean(found == -1) <= ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(553,), (20, 300), (10, 10, 10, 200)])
def test_errors_with_tasks_of_unequal_size(sizes: tuple[int, ...]) -> None:
    """Small tasks lose much and large ones gain: only the mean over tasks is at the boundary."""
    rounds, rng = _rounds(sizes), np.random.default_rng(5)
    offsets = np.linspace(-0.3, 0.3, len(sizes))
    means = (offsets - offsets.mean())[rounds.tasks] - 0.01
    gains = means + rng.choice([-0.6, 0.6], (SUITES, sum(sizes)))
    found = decisions(gains, rounds, 0.01)[:, -1]
    assert 0.002 < np.mean(found == 1) <= ALPHA
    assert 0.002 < np.mean(found == -1) <= ALPHA


def test_looking_often_at_a_fixed_test_would_err_more() -> None:
    """What the bets are for: the usual t test at 5 %, asked after every round, errs far more often."""
    rounds = _rounds()
    gains = Pairs(-0.01, 0.4, seeds_shared=False).gains(rounds.tasks, SUITES, seed=2)
    number = rounds.ends
    means = np.cumsum(gains, -1)[:, number - 1] / number
    squares = np.cumsum(gains**2, -1)[:, number - 1] / number
    t = (means + 0.01) / np.sqrt((squares - means**2) / number)
    assert np.mean((t > 1.645).any(-1)) > 0.1


@pytest.mark.slow
def test_the_sequence_holds_the_difference_in_all_rounds_at_once() -> None:
    rounds = _rounds()
    gains = Pairs(0.03, 0.4, seeds_shared=False).gains(rounds.tasks, 500, seed=3)
    held = [
        np.all((low <= 0.03) & (high >= 0.03))
        for low, high in (bounds(g, rounds, ALPHA / 2) for g in gains)
    ]
    assert np.mean(held) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seeds_shared", [False, True])
@pytest.mark.parametrize("correlation", [0.4, 0.6, 0.8])
def test_five_points_take_at_most_half_of_the_draws(correlation: float, seeds_shared: bool) -> None:
    rounds = _rounds()
    for difference, answer in ((-0.05, -1), (0.05, 1)):
        gains = Pairs(difference, correlation, seeds_shared).gains(rounds.tasks, SUITES, seed=4)
        found = decisions(gains, rounds, 0.01)
        assert _cost(found, rounds) <= 0.5
        assert np.mean(found[:, -1] == answer) >= 0.95


@pytest.mark.slow
def test_a_clear_loss_costs_a_tenth() -> None:
    rounds = Rounds.of([0] * 553, round_ends(553, 553))
    rng = np.random.default_rng(6)
    gains = rng.binomial(4, 0.4, (SUITES, 553)) / 4 - rng.binomial(4, 0.65, (SUITES, 553)) / 4
    assert _cost(decisions(gains, rounds, 0.01), rounds) < 0.11
