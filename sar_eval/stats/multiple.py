"""Many tests at once: adjusted p-values, and groups that cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from string import ascii_lowercase


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979): the chance of any false rejection stays below the level."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def letters(number: int, differing: set[tuple[int, int]]) -> list[str]:
    """Compact letter display (Piepho 2004): items that share a letter are not told apart.

    Args:
        number: of items, best first.
        differing: pairs (i, j), i < j, that are told apart.

    Returns:
        for each item its letters, `a` for the group of the best.
    """
    groups: list[set[int]] = [set(range(number))]
    for i, j in combinations(range(number), 2):
        if (i, j) in differing:
            groups = _split(groups, i, j)
    groups.sort(key=sorted)
    names = [ascii_lowercase[n] if n < 26 else f"({n + 1})" for n in range(len(groups))]
    return ["".join(n for n, g in zip(names, groups, strict=True) if i in g) for i in range(number)]


def _split(groups: list[set[int]], i: int, j: int) -> list[set[int]]:
    """Part two items in every group that holds both, and drop groups that lie within others."""
    split: list[set[int]] = []
    for group in groups:
        split += [group - {i}, group - {j}] if {i, j} <= group else [group]
    unique = [group for n, group in enumerate(split) if group not in split[:n]]
    return [group for group in unique if not any(group < other for other in unique)]
