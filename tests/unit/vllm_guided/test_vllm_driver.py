"""What makes a wave, and what two rows agree on; no vLLM is needed to decide either."""

from collections import deque
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.vllm_guided.driver import Capacity, Drawn, Order, VllmDriver, agreed
from sar_eval.vllm_guided.pairing import Layout

LAYOUT = Layout(10, 5)


def _driver(capacity: Capacity, steps: int = 20, waves: bool = True) -> VllmDriver:
    scheduler = SimpleNamespace(max_num_seqs=1, max_num_batched_tokens=1, watermark=0.0)
    cache = SimpleNamespace(num_gpu_blocks=2, block_size=4)
    config = SimpleNamespace(scheduler_config=scheduler, cache_config=cache)
    driver = VllmDriver(SimpleNamespace(vllm_config=config), LAYOUT, steps, waves)
    driver.capacity = capacity
    return driver


def _pairs(lengths: list[tuple[int, int]]) -> list[Order]:
    return [Order(((0,) * a, (0,) * b), n, 3.0) for n, (a, b) in enumerate(lengths)]


def test_the_capacity_is_that_of_vllms_configuration() -> None:
    scheduler = SimpleNamespace(max_num_seqs=7, max_num_batched_tokens=64, watermark=0.1)
    cache = SimpleNamespace(num_gpu_blocks=100, block_size=16)
    found = Capacity.of(SimpleNamespace(scheduler_config=scheduler, cache_config=cache))
    assert found == Capacity(7, 64, 89, 16)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=20),
    st.integers(2, 9),
    st.integers(4, 60),
    st.integers(4, 40),
)
def test_waves_fit_and_leave_nobody_out(
    lengths: list[tuple[int, int]], requests: int, step_tokens: int, blocks: int
) -> None:
    driver = _driver(Capacity(requests, step_tokens, blocks, 4))
    orders, drawn = _pairs(lengths), [Drawn() for _ in lengths]
    waiting, told = deque(range(len(orders))), []
    while waiting:
        wave = driver._next_wave(waiting, orders, drawn, len(orders))
        told += wave
        prompts = [len(p) for n in wave for p in orders[n].prompts]
        assert len(prompts) <= requests
        assert sum(prompts) <= step_tokens
        assert sum(-(-(length + 20) // 4) for length in prompts) <= blocks
    failed = [n for n, image in enumerate(drawn) if image.error]
    assert sorted(told + failed) == list(range(len(orders)))
    for n in failed:
        prompts = [len(p) for p in orders[n].prompts]
        assert driver.capacity.shortage(prompts, [length + 20 for length in prompts])


def test_a_image_too_large_for_the_memory_says_what_is_short() -> None:
    driver = _driver(Capacity(8, 100, 10, 4))
    drawn = [Drawn()]
    assert driver._next_wave(deque([0]), _pairs([(4, 4)]), drawn, 1) == []
    assert drawn[0].error == "an image takes 12 blocks of 4 tokens, the cache has 10"


def test_a_image_that_cannot_go_on_in_one_step_begins_anew() -> None:
    driver = _driver(Capacity(8, 20, 100, 4))
    drawn = [Drawn(tokens=[1] * 15, restarts=2)]
    assert driver._next_wave(deque([0]), _pairs([(4, 4)]), drawn, 1) == [0]
    assert drawn[0] == Drawn(restarts=2)


@pytest.mark.parametrize(
    ("rows", "common"),
    [
        ([[1, 2, 3]], 3),
        ([[1, 2, 11]], 2),
        ([[1, 2, 3], [1, 2, 3]], 3),
        ([[1, 2, 3], [1, 2]], 2),
        ([[1, 2, 10], [1, 2, 3]], 2),
        ([[1, 10], [1, 10]], 1),
        ([[], [1]], 0),
        ([[4, 1], [5, 1]], 0),
    ],
)
def test_rows_agree_up_to_the_first_difference_or_mark(rows: list[list[int]], common: int) -> None:
    assert agreed(rows, {LAYOUT.out_of_step, LAYOUT.fault}) == common
