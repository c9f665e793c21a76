"""What a sequential run costs: the share of a suite that is drawn until a difference is decided.

    python -m benchmarks.speed.sequential [--tolerance 0.01] [--suites 2000]

Simulated pairs of runs of a suite like GenEval's: 553 prompts in six tasks, four images each, shares of
correct images from 0.05 to 0.97 in the first run, moved in the second so that their mean over tasks differs
by so much. One looks after every tenth of the prompts.
"""

import argparse
import datetime

import numpy as np

from sar_eval.runtime.drawing_order import draw_in_order, round_ends
from sar_eval.stats.sequential import Rounds, decisions
from sar_eval.types import DrawingOrder, Prompt
from tests.simulated_suites import PROMPTS, Pairs

DIFFERENCES = (-0.30, -0.20, -0.10, -0.07, -0.05, -0.03, -0.01, 0.0, 0.01, 0.03, 0.05, 0.10)
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8)


def geneval_rounds() -> Rounds:
    """Rounds of a sequential run of GenEval."""
    tasks = np.repeat(np.arange(len(PROMPTS)), PROMPTS)
    suite = [Prompt(f"{number:05d}", "", str(task)) for number, task in enumerate(tasks)]
    order = draw_in_order(suite, DrawingOrder(seed=0, by_tag=True))
    return Rounds.of(tasks[order].tolist(), round_ends(len(suite), min(PROMPTS)))


def cell(pairs: Pairs, rounds: Rounds, tolerance: float, suites: int) -> str:
    """Mean share drawn; below it how often the end was pass and fail."""
    found = decisions(pairs.gains(rounds.tasks, suites, seed=0), rounds, tolerance)
    decided = found[:, -1] != 0
    drawn = np.where(decided, rounds.ends[np.argmax(found != 0, axis=-1)], rounds.ends[-1])
    passed, failed = (np.mean(found[:, -1] == answer) for answer in (1, -1))
    return f"{drawn.mean() / rounds.ends[-1]:.0%} ({passed:.0%} / {failed:.0%})"


def main() -> None:
    """Simulate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tolerance", type=float, default=0.01)
    parser.add_argument("--suites", type=int, default=2000)
    options = parser.parse_args()
    rounds = geneval_rounds()
    print(f"{datetime.date.today()}, {options.suites} suites a cell, tolerance {options.tolerance}")
    for seeds_shared in (False, True):
        print(f"\n{'The same' if seeds_shared else 'Other'} seeds in both runs:\n")
        print("| true difference |" + "".join(f" correlation {c} |" for c in CORRELATIONS))
        print("| --- |" + " --- |" * len(CORRELATIONS))
        for difference in DIFFERENCES:
            every = [Pairs(difference, c, seeds_shared) for c in CORRELATIONS]
            cells = [cell(pairs, rounds, options.tolerance, options.suites) for pairs in every]
            print(f"| {difference:+.2f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
