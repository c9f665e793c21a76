"""Orders that a training is resumed in: these numbers are those of every version."""

import numpy as np
import pytest

from sar_eval.train.mixture import BLOCK, Mixture, quotas_of
from sar_eval.train.seeded_order import mixed, permutation, uniform


def test_hashes_stay() -> None:
    assert [hex(word) for word in mixed(1, 2, np.arange(4)).tolist()] == [
        "0xe68e6fc01df08360",
        "0xb815246f417cade2",
        "0xe930af93af0daf48",
        "0xd0734750fde362b3",
    ]
    assert permutation(10, 3, 1, 0).tolist() == [7, 8, 2, 4, 9, 1, 0, 3, 6, 5]
    assert uniform(5, np.arange(3)).tolist() == [0.9798413679101445, 0.8807895827318415, 0.1415842747423589]


@pytest.mark.parametrize(
    ("weights", "quotas"),
    [
        ([0.7, 0.3], [7000, 3000]),
        ([1.0, 1.0, 1.0], [3334, 3333, 3333]),
        ([1e-9, 1e-9, 1.0], [1, 1, 9998]),
        ([1e-9, 1e-9, 1e-9, 1.0, 2.0], [1, 1, 1, 3333, 6664]),
    ],
)
def test_quotas_stay(weights: list[float], quotas: list[int]) -> None:
    assert quotas_of(weights).tolist() == quotas


def test_a_mixture_stays() -> None:
    numbers, indices = Mixture([0.7, 0.3], 0).places(np.arange(10))
    assert numbers.tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert indices.tolist() == [0, 1, 2, 0, 3, 4, 5, 1, 6, 7]
    numbers, indices = Mixture([0.7, 0.3], 0).places(np.arange(BLOCK, BLOCK + 10))
    assert numbers.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert indices.tolist() == [3000, 7000, 7001, 7002, 7003, 7004, 7005, 7006, 3001, 7007]
