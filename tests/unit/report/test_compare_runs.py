"""Which pairs of pictures the comparing page of large runs has."""

import numpy as np
import pytest

from sar_eval.report.compare_runs import choose_pairs, scores_of
from sar_eval.report.data import FAIL, NONE, PASS, SCORED, RunRows
from sar_eval.report.pictures import ALL_UP_TO, SAMPLE


def make_rows(states: np.ndarray, k: int = 1, scores: np.ndarray | None = None, tasks: int = 2) -> RunRows:
    """Rows of prompts whose tasks take turns."""
    number = len(states) // k
    codes = (np.arange(number) % tasks + 1).astype(np.uint16)
    ids, names = [f"p{n}" for n in range(number)], [f"t{n}" for n in range(tasks)]
    rows = RunRows(ids, ids, names, [], codes, np.zeros(number, np.uint16), {}, k)
    rows.states[:] = states
    rows.stored[:] = True
    if scores is not None:
        rows.scores[:] = scores
    return rows


def test_scores_of_every_kind_of_verdict() -> None:
    rows = make_rows(np.array([PASS, FAIL, SCORED, NONE]), 2, np.array([9, 9, -1.5, np.nan]))
    expected = [1, 0, np.nan, -1.5, np.nan, np.nan]
    np.testing.assert_array_equal(scores_of(rows, 3), expected)


def test_small_runs_have_all_pairs_and_large_ones_a_sample() -> None:
    half = ALL_UP_TO // 2
    rows = make_rows(np.full(half, PASS))
    assert len(choose_pairs([rows, rows], None)) == half
    many = make_rows(np.full(half + 1, PASS))
    assert len(choose_pairs([many, many], None)) == SAMPLE


@pytest.mark.parametrize("limit", [8, 40])
def test_what_changed_comes_first_from_every_task_and_to_both_sides(limit: int) -> None:
    first, second = np.full(4000, PASS), np.full(4000, PASS)
    second[:200], first[200:220] = FAIL, FAIL  # 200 lost, 20 won
    chosen = choose_pairs([make_rows(first), make_rows(second)], limit)
    assert len(chosen) == limit
    assert (chosen < 220).all()
    won = chosen >= 200
    assert won.sum() == min(limit // 2, 20)
    assert abs((chosen % 2 == 0).sum() - limit // 2) <= 1


def test_the_largest_change_comes_first() -> None:
    scores = np.arange(1000.0)
    first = make_rows(np.full(1000, SCORED), scores=np.zeros(1000), tasks=1)
    second = make_rows(np.full(1000, SCORED), scores=scores, tasks=1)
    assert choose_pairs([first, second], 3).tolist() == [997, 998, 999]


def test_an_image_that_one_run_lacks_has_not_changed() -> None:
    first, second = make_rows(np.full(40, PASS), 4), make_rows(np.full(20, PASS), 2)
    second.states[5] = FAIL  # prompt 2, image 1: row 9 of the run with four
    second.states[6] = NONE
    assert choose_pairs([first, second], 1).tolist() == [9]
