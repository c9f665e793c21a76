"""Tests of a paired difference that may be looked at after every round, by betting.

Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting" (J. R. Stat. Soc. B
86:1): somebody bets on every prompt that the difference is above a supposed value. If it is not, no way of
betting makes money in the long run: the capital passes 1 / alpha with probability alpha at most, however
often one looks (Ville's inequality). So a capital of 1 / alpha refutes the supposed value.

Prompts are a sample within their task, and the difference is the mean over tasks by their shares w_i. A
round has k_i prompts of task i, and all bets of a round are fixed before it: lambda_i, with lambda_i * k_i
in proportion to w_i. The capital is multiplied by prod(1 + lambda_i (d - m)). Differences of several
prompts are independent and log(1 + x) <= x, so the expected factor of a round is at most
exp(sum_i k_i lambda_i (mean_i - m)), which is at most 1 if the mean over tasks is m or less: no task needs
to have the difference m itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sar_eval.stats.totals import relative

Floats = NDArray[np.float64]
Decision = Literal["pass", "fail", "open"]
ALPHA = 0.05
BOLDEST_BET = 0.99  # of the capital that the worst possible difference would take
NAMES: dict[float, Decision] = {1.0: "pass", -1.0: "fail", 0.0: "open"}
STEPS = 36  # of bisection: limits to 1e-10


@dataclass(frozen=True, slots=True)
class Look:
    """What is known after a round.

    Attributes:
        prompts: drawn and judged so far.
        first, second: means over the tasks of their mean scores, so far, in the two runs.
        lower, upper: one-sided 95 % bounds of second - first, each of which holds after all rounds at once.
        low, high: 95 % confidence sequence: all of these intervals hold the difference at once.
        decision: `pass` or `fail` from the first round on that shows it; `open` before.
    """

    prompts: int
    first: float
    second: float
    lower: float
    upper: float
    low: float
    high: float
    decision: Decision


@dataclass(frozen=True)
class Rounds:
    """Which prompt is of which task, and after which ones one looks.

    Attributes:
        tasks: number of its task of every prompt, 0 up to T - 1, in the order of drawing [N].
        ends: prompts up to the end of each round; each round has every task.
        weights: relative share of each task in the difference [T], 1 each where they weigh the same.
    """

    tasks: NDArray[np.int64]
    ends: NDArray[np.int64]
    weights: Floats

    @classmethod
    def of(cls, tasks: Sequence[int], ends: Sequence[int], shares: Sequence[float] = ()) -> Rounds:
        """Rounds that end there; one that lacks a task is joined to the next, the last to that before."""
        codes, kept, start = np.array(tasks, np.int64), [], 0
        number = len(np.unique(codes))
        for end in ends:
            if len(np.unique(codes[start:end])) == number:
                kept.append(end)
                start = end
        weights = np.array(relative(shares or [1.0] * number))
        return cls(codes, np.array([*kept[:-1], ends[-1]], np.int64), weights)

    @cached_property
    def shares(self) -> Floats:
        """By prompt, its bet as a share of the boldest of its round: as its task's share by its prompts."""
        found, start = np.zeros(len(self.tasks)), 0
        for end in self.ends:
            tasks = self.tasks[start:end]
            counts = np.bincount(tasks)
            bets = self.weights * counts.min() / counts
            found[start:end] = (bets / bets.max())[tasks]
            start = end
        return found

    @cached_property
    def bets(self) -> Floats:
        """Bets between which the capital is divided evenly, each half of the one before.

        The best bet is (difference - m) / variance, and what N prompts can show is a difference of about
        1 / sqrt(N): a bet of much less than 10 / sqrt(N) would gain too slowly.
        """
        smallest = 10 / math.sqrt(len(self.tasks))
        number = 1 + max(0, math.floor(math.log2(BOLDEST_BET / smallest)))
        return np.array([BOLDEST_BET / 2**halvings for halvings in range(number)])


def log_capital(differences: Floats, rounds: Rounds, supposed: float | Floats, side: int) -> Floats:
    """Logarithm of the capital after each round of bets against a supposed difference.

    Args:
        differences: of the prompts' mean scores in [-1, 1], in the order of drawing [..., n].
        rounds: of which the n prompts cover R.
        supposed: the difference, in (-1, 1), or one for each of the suites [...].
        side: 1 bets that the true one is greater, -1 that it is less.

    Returns:
        [..., R].
    """
    ends = rounds.ends[rounds.ends <= differences.shape[-1]]
    drawn = ends[-1] if len(ends) else 0
    centre = side * np.asarray(supposed, float)[..., None]
    # Bets are shares of 1 / (1 + m), with which a difference of -1 would take everything.
    gains = (side * differences[..., :drawn] - centre) / (1 + centre) * rounds.shares[:drawn]
    capitals = [np.cumsum(np.log1p(bet * gains), axis=-1)[..., ends - 1] for bet in rounds.bets]
    return np.asarray(np.logaddexp.reduce(capitals, axis=0) - math.log(len(capitals)))


def decisions(differences: Floats, rounds: Rounds, tolerance: float, alpha: float = ALPHA) -> Floats:
    """After each round: 1 once the difference is shown to be above -tolerance, -1 below, 0 before.

    Each of the two is wrong with probability `alpha` at most, over all rounds together. The first holds.
    """
    bar = -math.log(alpha)
    above, below = (log_capital(differences, rounds, -tolerance, side) >= bar for side in (1, -1))
    found = above.astype(float) - below
    first = np.argmax(found != 0, axis=-1)[..., None]
    shown = np.take_along_axis(found, first, axis=-1)
    return np.where(np.arange(found.shape[-1]) >= first, shown, 0.0)


def bounds(differences: Floats, rounds: Rounds, alpha: float) -> tuple[Floats, Floats]:
    """Least and greatest difference after each round, each wrong in any of them with probability `alpha`.

    Between them are the supposed differences that neither of two gamblers has refuted. Together they are
    a confidence sequence of level 1 - 2 alpha.

    Returns:
        [R] each.
    """
    bar = -math.log(alpha)
    low, high = (side * _refuted(differences, rounds, side, bar) for side in (1, -1))
    return np.maximum.accumulate(low), np.minimum.accumulate(high)


def _refuted(differences: Floats, rounds: Rounds, side: int, bar: float) -> Floats:
    """After each round, the greatest m such that `side` times the difference is shown to be above it."""
    number = int(np.count_nonzero(rounds.ends <= len(differences)))
    inside, outside = np.full(number, -1 + 1e-12), np.ones(number)  # capital falls as m grows
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        each = np.broadcast_to(differences, (number, len(differences)))
        is_refuted = np.diagonal(log_capital(each, rounds, side * middle, side)) >= bar
        inside, outside = np.where(is_refuted, middle, inside), np.where(is_refuted, outside, middle)
    return np.where(inside > -1 + 1e-9, inside, -1.0)


def looks(first: Floats, second: Floats, rounds: Rounds, tolerance: float) -> list[Look]:
    """What was known after each finished round, in order (see `Look`).

    Args:
        first, second: mean scores of the same prompts in the two runs, 0 to 1, in the order of drawing [n].
        rounds: those that the n prompts cover are looked at.
        tolerance: a loss that does not matter, at least 0 and below 1.
    """
    gains = second - first
    if len(gains) < rounds.ends[0]:
        return []
    lower, upper = (limit.tolist() for limit in bounds(gains, rounds, ALPHA))
    low, high = (limit.tolist() for limit in bounds(gains, rounds, ALPHA / 2))
    answers = decisions(gains, rounds, tolerance).tolist()
    return [
        Look(
            prompts=end,
            first=_mean(first[:end], rounds),
            second=_mean(second[:end], rounds),
            lower=lower[number],
            upper=upper[number],
            low=low[number],
            high=high[number],
            decision=NAMES[answers[number]],
        )
        for number, end in enumerate(rounds.ends[: len(answers)].tolist())
    ]


def _mean(scores: Floats, rounds: Rounds) -> float:
    tasks = rounds.tasks[: len(scores)]
    return float(np.mean(rounds.weights * (np.bincount(tasks, scores) / np.bincount(tasks))))
