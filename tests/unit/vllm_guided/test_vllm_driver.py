"""How waves are planned, and which tokens two rows have in common; without vLLM."""

from collections import deque
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.vllm_guided.driver import (
    Capacity,
    ImageOutput,
    ImageRequest,
    VllmDriver,
    common_prefix_length,
)
from sar_eval.vllm_guided.pairing import TokenLayout

LAYOUT = TokenLayout(10, 5)


def _driver(capacity: Capacity, image_tokens: int = 20, waves: bool = True) -> VllmDriver:
    scheduler = SimpleNamespace(max_num_seqs=1, max_num_batched_tokens=1, watermark=0.0)
    cache = SimpleNamespace(num_gpu_blocks=2, block_size=4)
    config = SimpleNamespace(scheduler_config=scheduler, cache_config=cache)
    driver = VllmDriver(SimpleNamespace(vllm_config=config), LAYOUT, image_tokens, waves)
    driver.capacity = capacity
    return driver


def _requests(lengths: list[tuple[int, int]]) -> list[ImageRequest]:
    return [ImageRequest(((0,) * a, (0,) * b), n, 3.0) for n, (a, b) in enumerate(lengths)]


def test_a_branch_has_the_engines_ids_of_what_is_forced() -> None:
    request = ImageRequest(((1,),) * 3, 7, weights=((2.0, 0.5),), forced={9: 3, 4: 1})
    layout = TokenLayout(10, 5, forced_ids=(1, 3))
    branch = request.branch("a", 2, 6, layout)
    assert (branch.index, branch.start, branch.branches) == (2, 6, 3)
    assert branch.forced == ((4, 12), (9, 13))
    assert [branch.place(slot) for slot in (3, 4, 5, 9, 10)] == [
        (3, None),
        (4, 12),
        (4, None),
        (8, 13),
        (8, None),
    ]


def test_the_capacity_is_that_of_vllms_configuration() -> None:
    scheduler = SimpleNamespace(max_num_seqs=7, max_num_batched_tokens=64, watermark=0.1)
    cache = SimpleNamespace(num_gpu_blocks=100, block_size=16)
    capacity = Capacity.from_config(SimpleNamespace(scheduler_config=scheduler, cache_config=cache))
    assert capacity == Capacity(7, 64, 89, 16)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=20),
    st.integers(2, 9),
    st.integers(4, 60),
    st.integers(4, 40),
)
def test_waves_fit_and_include_every_image(
    lengths: list[tuple[int, int]], max_num_seqs: int, max_num_batched_tokens: int, blocks: int
) -> None:
    driver = _driver(Capacity(max_num_seqs, max_num_batched_tokens, blocks, 4))
    requests, outputs = _requests(lengths), [ImageOutput() for _ in lengths]
    waiting, submitted = deque(range(len(requests))), []
    while waiting:
        wave = driver._next_wave(waiting, requests, outputs, len(requests))
        submitted += wave
        prompts = [len(p) for n in wave for p in requests[n].prompts]
        assert len(prompts) <= max_num_seqs
        assert sum(prompts) <= max_num_batched_tokens
        assert sum(-(-(length + 20) // 4) for length in prompts) <= blocks
    failed = [n for n, output in enumerate(outputs) if output.error]
    assert sorted(submitted + failed) == list(range(len(requests)))
    for n in failed:
        prompts = [len(p) for p in requests[n].prompts]
        assert driver.capacity.shortage(prompts, [length + 20 for length in prompts])


def test_the_error_of_an_image_too_large_names_the_shortage() -> None:
    driver = _driver(Capacity(8, 100, 10, 4))
    outputs = [ImageOutput()]
    assert driver._next_wave(deque([0]), _requests([(4, 4)]), outputs, 1) == []
    assert outputs[0].error == "an image takes 12 blocks of 4 tokens, the cache has 10"


def test_an_image_too_long_to_be_resumed_in_one_step_starts_from_its_prompt() -> None:
    driver = _driver(Capacity(8, 20, 100, 4))
    outputs = [ImageOutput(tokens=[1] * 15, restarts=2)]
    assert driver._next_wave(deque([0]), _requests([(4, 4)]), outputs, 1) == [0]
    assert outputs[0] == ImageOutput(restarts=2)


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
def test_rows_have_tokens_in_common_up_to_a_difference_or_marker(
    rows: list[list[int]], common: int
) -> None:
    assert common_prefix_length(rows, {LAYOUT.out_of_sync_id, LAYOUT.not_finite_id}) == common
