"""The mean probability that a preference model prefers the second run's pictures."""

import numpy as np
import pytest

from sar_eval.measures import Measure, stratum
from sar_eval.stats.preference import mean_preference, preference


def measure(rows: dict[tuple[str, int], float]) -> Measure:
    return Measure(
        "scorer/pickscore", (stratum((p, i, v, 1.0) for (p, i), v in rows.items()),), bounds=None
    )


def test_softmax_of_pictures_of_the_same_prompt_and_index() -> None:
    rng = np.random.default_rng(0)
    first = {(f"p{n}", index): float(rng.normal(20, 1)) for n in range(40) for index in range(2)}
    second = {key: value + 0.7 for key, value in first.items()}
    del first["p0", 0], second["p5", 1]
    found = mean_preference("pickscore", measure(first), measure(second))
    assert found.name == "pickscore"
    assert found.n == 78
    assert found.value == pytest.approx(preference(0.7, 0.0), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    back = mean_preference("pickscore", measure(second), measure(first))
    assert back.value == pytest.approx(1 - found.value)


def test_none_without_a_common_picture() -> None:
    assert mean_preference("x", measure({("a", 0): 1.0}), measure({("b", 0): 1.0})) is None
    assert mean_preference("x", Measure("m", ()), measure({("b", 0): 1.0})) is None
