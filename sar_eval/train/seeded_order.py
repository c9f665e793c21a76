"""Shuffles and coin flips as pure functions of a seed and of a few numbers.

A generator of NumPy has a state, and its methods may give other numbers in another version (NEP 19): a
training that is resumed there would see other rows. These hashes stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Index = NDArray[np.int64]


def mixed(*words: int | Index) -> Words:
    """A hash of the words, element by element: the finaliser of splitmix64 after each.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", with Stafford's mix 13.
    """
    state = np.zeros(1, np.uint64)
    for word in words:
        state = _finalised((state ^ np.atleast_1d(word).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15))
    return state


def _finalised(z: Words) -> Words:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def permutation(number: int, *words: int) -> Index:
    """The numbers below `number` in an order that the words decide."""
    return np.argsort(mixed(*words, np.arange(number)), kind="stable")


def uniform(*words: int | Index) -> NDArray[np.float64]:
    """Numbers of [0, 1) with 53 bits."""
    return (mixed(*words) >> np.uint64(11)).astype(np.float64) * 2.0**-53
