"""The funnel: what is left after each step, and intervals that hold what they promise."""

import io

import numpy as np
import pytest
from rich.console import Console

from sar_eval.cli.synth_funnel import funnel_table, order_table
from sar_eval.stats.intervals import wilson_interval
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.funnel import funnel
from sar_eval.synthesis.selection import make_selection


def record(block, draws, prompts=None, **fates):
    counts = {name.replace("_", ": "): number for name, number in fates.items()}
    return BlockRecord(block, 0, "", "", prompts or draws // 4, draws, 0, 0, counts)


def test_each_step_takes_what_ended_there():
    blocks = [
        record(
            0, 40, failed=1, unjudged=2, filtered_b=10, filtered_a=3, outranked=12, duplicate=2, kept=10
        ),
        record(1, 40, filtered_a=20, kept=20),
    ]
    steps = funnel(iter(blocks), ["a", "b", "c"])
    assert [(step.name, step.draws) for step in steps] == [
        ("draws", 80),
        ("drawn", 79),
        ("judged", 77),
        ("a", 54),
        ("b", 44),
        ("c", 44),
        ("best of its prompt", 32),
        ("kept", 30),
    ]
    assert steps[-1].share == 30 / 80
    assert all(0 <= step.low <= step.share <= step.high <= 1 for step in steps)
    unnamed = funnel(blocks, ["b"])
    assert [(step.name, step.draws) for step in unnamed][3:5] == [("b", 67), ("other clauses", 44)]
    assert unnamed[-1] == steps[-1]
    assert funnel([], ["a"]) == []


def test_one_block_has_wilsons_interval_of_its_prompts():
    (*_, kept) = funnel([record(0, 40, prompts=10, filtered_a=20, kept=20)], ["a"])
    assert (kept.low, kept.high) == wilson_interval(0.5, 10)
    (*_, kept) = funnel([record(n, 40, prompts=10, kept=40) for n in range(5)])
    assert (kept.low, kept.high) == wilson_interval(1.0, 50)


def test_the_size_is_the_ratio_estimators():
    """Against the formula written out with NumPy, for so many blocks that Student's t is Gauss's."""
    rng = np.random.default_rng(0)
    draws = rng.integers(8, 65, 3000)
    kept = rng.binomial(draws, rng.beta(2, 3, 3000))
    blocks = [
        record(n, int(m), kept=int(y), filtered_a=int(m - y))
        for n, (m, y) in enumerate(zip(draws, kept, strict=True))
    ]
    (*_, step) = funnel(blocks, ["a"])
    share = kept.sum() / draws.sum()
    deviation = np.sqrt(3000 / 2999 * ((kept - share * draws) ** 2).sum()) / draws.sum()
    assert step.share == share
    assert (step.high - step.low) / 2 == pytest.approx(1.96 * deviation, rel=0.01)
    assert step.high - step.low > 1.5 * np.diff(wilson_interval(share, draws.sum()))[0]


@pytest.mark.parametrize("blocks", [4, 12, 60])
def test_intervals_hold_the_true_share_95_times_in_100(blocks):
    """Draws of a block are alike: its own rate is spread around the true one of 0.3."""
    rng, hits, tries = np.random.default_rng(blocks), 0, 400
    for _ in range(tries):
        kept = rng.binomial(64, rng.beta(6, 14, blocks))
        (*_, step) = funnel(record(n, 64, filtered_a=64 - int(y), kept=int(y)) for n, y in enumerate(kept))
        hits += step.low <= 0.3 <= step.high
    assert 0.92 <= hits / tries <= 0.995


def printed(table):
    file = io.StringIO()
    Console(file=file, width=100).print(table)
    return file.getvalue()


def test_the_tables_say_it():
    blocks = [record(n, 40, **{"filtered_[red]hps > 1": 10 + n, "kept": 30 - n}) for n in range(9)]
    text = printed(funnel_table(funnel(blocks, ["[red]hps > 1"])))
    assert "[red]hps > 1" in text
    assert "65.00 %" in text
    assert "360" in text
    assert printed(funnel_table([])).strip()
    chosen = make_selection(filter="colourfulness > 1", rank="shapes-soft", columns=["shapes"])
    rows = printed(order_table(chosen)).splitlines()
    found = [
        next(line for line in rows if name in line) for name in ("colourful", "shapes-soft", "shapes ")
    ]
    assert ["filter" in found[0], "rank" in found[1], "column of the kept" in found[2]] == [True] * 3
