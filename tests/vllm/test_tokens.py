"""Token for token: the reference's guided generation, the engine native, and pairs that fall apart."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sar_eval.engines.vllm import VllmEngine
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.driver import Order
from tests.vllm.drawing import codes, demo_engine, demo_orders, plain_codes, reference_engine
from tests.vllm.widen import widened


@pytest.mark.parametrize("full", [False, True], ids=["visual_only", "full_vocab"])
@pytest.mark.parametrize("name", ["dev_tied", "dev_untied"])
def test_greedy_tokens_are_the_references(parity: Path, tmp_path: Path, name: str, full: bool) -> None:
    """Guidance 1, 3 and 6 in one batch: it belongs to the request, not to the engine."""
    folder = parity / "simplear" / name
    expected = json.loads((folder / "expected.json").read_text())
    cases = expected["cases"]
    assert {case["cfg_scale"] for case in cases} == {1.0, 3.0, 6.0}
    [side] = {case["grid"] for case in cases}
    orders = [
        Order(
            (tuple(case["prompt_ids"]), tuple(case["negative_ids"]))[: 1 if case["cfg_scale"] == 1 else 2],
            0,
            case["cfg_scale"],
            temperature=0.0,
        )
        for case in cases
    ]
    protocol = DrawProtocol("test", 64, guidance=3.0, full_vocab=full)
    with reference_engine(widened(folder, tmp_path / "wide"), side, protocol=protocol) as engine:
        drawn = engine.driver.draw(orders)
        found = codes(engine, drawn)
    tokens = [[code + 120 for code in image] for image in found]
    wanted = "full_vocab" if full else "visual_only"
    assert tokens == [case[f"tokens_{wanted}"] for case in cases]
    assert [image.restarts for image in drawn] == [0] * len(cases)


@pytest.fixture(scope="module")
def demo() -> Iterator[VllmEngine]:
    with demo_engine() as engine:
        yield engine


@pytest.mark.parametrize("number", [1, 2, 7, 32])
def test_sampled_tokens_are_natives_for_any_number_of_pairs(demo: VllmEngine, number: int) -> None:
    orders = demo_orders(number)
    drawn = demo.driver.draw(orders)
    assert codes(demo, drawn) == plain_codes(orders)
    assert sum(image.restarts for image in drawn) == 0


def test_every_request_has_its_own_way_of_sampling(demo: VllmEngine) -> None:
    orders = demo_orders(6)
    orders = [
        orders[0],
        replace(orders[1], guidance=6.0, temperature=0.7),
        replace(orders[2], top_k=5),
        replace(orders[3], top_p=0.5, temperature=1.3),
        replace(orders[4], prompts=orders[4].prompts[:1], guidance=1.0),
        replace(orders[5], temperature=0.0),
    ]
    assert codes(demo, demo.driver.draw(orders)) == plain_codes(orders)


def test_guidance_off_takes_one_request_a_image() -> None:
    orders = demo_orders(5, guidance=1.0)
    with demo_engine(guidance=1.0) as engine:
        assert engine.arguments()["max_num_seqs"] == 64
        added = []
        add = engine.driver.engine.add_request
        engine.driver.engine.add_request = lambda name, *rest: added.append(name) or add(name, *rest)
        assert codes(engine, engine.driver.draw(orders)) == plain_codes(orders)
    assert len(added) == 5


SCENARIOS: dict[str, dict[str, Any]] = {
    "prefill over several steps": {"max_num_batched_tokens": 40, "max_num_seqs": 16},
    "an odd batch": {"max_num_seqs": 7},
    "little memory": {"kv_cache_memory_bytes": 9 * 128 * 2 * 6 * 2 * 32 * 4},
    "shared prefixes": {"enable_prefix_caching": True},
    "shared prefixes, split": {
        "enable_prefix_caching": True,
        "max_num_batched_tokens": 40,
        "max_num_seqs": 9,
    },
    "asynchronous": {"async_scheduling": True},
    "synchronous": {"async_scheduling": False},
    "asynchronous, odd, split": {"async_scheduling": True, "max_num_seqs": 7, "max_num_batched_tokens": 40},
}
FALL_APART = {
    "prefill over several steps",
    "an odd batch",
    "asynchronous, odd, split",
    "shared prefixes, split",
}


@pytest.mark.parametrize("waves", [True, False], ids=["waves", "no_waves"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pairs_keep_in_step_or_are_brought_back(scenario: str, waves: bool) -> None:
    orders = demo_orders(12)
    with demo_engine(waves=waves, batch_size=12, **SCENARIOS[scenario]) as engine:
        drawn = engine.driver.draw(orders)
        assert codes(engine, drawn) == plain_codes(orders)
    restarts = sum(image.restarts for image in drawn)
    if waves:
        assert restarts == 0
    elif scenario in FALL_APART:
        assert restarts > 0, "nothing fell apart, so nothing was shown"


@pytest.mark.parametrize("waves", [True, False], ids=["waves", "no_waves"])
def test_the_core_may_be_another_process(monkeypatch: pytest.MonkeyPatch, waves: bool) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    orders = demo_orders(12)
    with demo_engine(waves=waves, batch_size=12, max_num_seqs=7) as engine:
        drawn = engine.driver.draw(orders)
        assert codes(engine, drawn) == plain_codes(orders)
    assert not waves or sum(image.restarts for image in drawn) == 0
