"""Holm's adjustment and letters of groups."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from sar_eval.stats.multiple import holm, letters


def test_holm_is_that_of_the_textbook() -> None:
    # Holm 1979; the same as R's p.adjust(c(.01, .04, .03, .005), "holm").
    assert holm([0.01, 0.04, 0.03, 0.005]) == [0.03, 0.06, 0.06, 0.02]
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_letters_of_three_runs() -> None:
    assert letters(3, set()) == ["a", "a", "a"]
    assert letters(3, {(0, 2), (1, 2)}) == ["a", "a", "b"]
    assert letters(3, {(0, 2)}) == ["a", "ab", "b"]
    assert letters(3, {(0, 1), (0, 2), (1, 2)}) == ["a", "b", "c"]


@given(st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.sampled_from(
    list(combinations(range(n), 2)))))))  # fmt: skip
def test_runs_share_a_letter_exactly_if_they_are_not_told_apart(case: tuple[int, set]) -> None:
    number, differing = case
    found = letters(number, differing)
    assert all(found)
    for i, j in combinations(range(number), 2):
        assert bool(set(found[i]) & set(found[j])) == ((i, j) not in differing)
