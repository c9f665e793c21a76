"""A bounded sample of vectors: all of a small set, the same for any batches, and fair."""

import numpy as np

from sar_eval.stats.reservoir import Reservoir


def _fill(number, capacity, seed, size):
    kept = Reservoir(capacity, seed)
    for start in range(0, number, size):
        numbers = np.arange(start, min(start + size, number))
        kept.add(numbers[:, None].astype(np.float32), numbers)
    return kept


def test_a_small_set_is_kept_whole() -> None:
    kept = _fill(9, 10, 0, 4)
    assert kept.units().tolist() == list(range(9)) == kept.vectors()[:, 0].tolist()


def test_batches_do_not_change_the_sample() -> None:
    samples = [_fill(500, 20, 5, size).units().tolist() for size in (1, 7, 500)]
    assert samples[0] == samples[1] == samples[2]
    assert len(set(samples[0])) == 20


def test_each_vector_is_as_likely() -> None:
    counts = np.zeros(50)
    for seed in range(600):
        counts[_fill(50, 10, seed, 50).units()] += 1
    assert counts.min() > 80  # 120 expected, deviation 10
    assert counts.max() < 160
