"""The order in which sequential runs draw: random, balanced, the same for ever."""

from collections import Counter
from itertools import pairwise

import pytest

from sar_eval.runtime.blocks import Blocks
from sar_eval.runtime.drawing_order import draw_in_order, round_ends
from sar_eval.types import DrawingOrder, Prompt, make_draw

SIZES = {"counting": 80, "colors": 94, "position": 100}
SUITE = [Prompt(f"{tag}-{n}", tag, tag) for tag, size in SIZES.items() for n in range(size)]
BY_TAG = DrawingOrder(seed=0, by_tag=True)


def test_every_prompt_comes_once() -> None:
    for order in (BY_TAG, DrawingOrder(seed=3, by_tag=False)):
        assert sorted(draw_in_order(SUITE, order)) == list(range(len(SUITE)))


def test_the_order_is_that_of_earlier_versions() -> None:
    """A run that another version began goes on: the order is in its blocks."""
    assert draw_in_order(SUITE[:6], BY_TAG) == [4, 5, 2, 0, 3, 1]
    assert draw_in_order(SUITE[78:84], BY_TAG) == [5, 1, 2, 4, 0, 3]


def test_prompts_come_in_an_order_of_their_own_for_every_seed() -> None:
    orders = {tuple(draw_in_order(SUITE, DrawingOrder(seed=seed, by_tag=False))) for seed in range(5)}
    assert len(orders) == 5
    first = [draw_in_order(SUITE, DrawingOrder(seed=seed, by_tag=False))[0] for seed in range(300)]
    assert 0.4 < sum(first) / 300 / len(SUITE) < 0.6


def test_every_round_has_its_share_of_every_task() -> None:
    order = draw_in_order(SUITE, BY_TAG)
    ends = round_ends(len(SUITE), min(SIZES.values()))
    for start, end in pairwise([0, *ends]):
        counts = Counter(SUITE[position].tag for position in order[start:end])
        assert all(abs(counts[tag] - size / 10) <= 1.5 for tag, size in SIZES.items())


def test_rounds_are_tenths_or_as_many_as_a_task_has_prompts() -> None:
    assert round_ends(553, 80) == [56, 111, 166, 222, 277, 332, 388, 443, 498, 553]
    assert round_ends(24, 4) == [6, 12, 18, 24]
    assert round_ends(25, 3) == [9, 17, 25]
    assert round_ends(1, 1) == [1]


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_blocks_hold_the_same_draws_in_another_order(size: int) -> None:
    """Seeds and keys are those of a plain run."""
    suite = SUITE[70:90]
    order = draw_in_order(suite, BY_TAG)
    plain, mixed = (Blocks(suite, 2, 7, size, order=found) for found in (None, order))
    ordered = [suite[position] for position in order]
    for blocks, prompts in ((plain, suite), (mixed, ordered)):
        draws = [draw for block in blocks for draw in block]
        assert draws == [make_draw(prompt, index, 7) for prompt in prompts for index in range(2)]
        keys = [key for number in range(len(blocks)) for key in blocks.keys(number)]
        assert keys == [draw.key for draw in draws]


def test_the_blocks_of_a_round() -> None:
    blocks = Blocks(SUITE, 4, 0, 64)
    assert blocks.blocks_of(28) == 2
    assert blocks.blocks_of(32) == 2
    assert blocks.blocks_of(33) == 3
    assert blocks.blocks_of(len(SUITE)) == len(blocks)
    assert [blocks.prompts_in(number) for number in (1, 2, len(blocks))] == [16, 32, len(SUITE)]
    assert Blocks(SUITE, 3, 0, 64).prompts_in(1) == 21  # of the 22nd, one draw
