"""Tokens on vLLM equal those of the reference and of the engine native, even if pairs get out of sync."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sar_eval.engines.vllm import VllmEngine
from sar_eval.types import DrawProtocol
from sar_eval.vllm_guided.driver import ImageRequest
from tests.vllm.engines import codes, demo_engine, demo_requests, native_codes, reference_engine
from tests.vllm.widen import widen_checkpoint


@pytest.mark.parametrize("full", [False, True], ids=["visual_only", "full_vocab"])
@pytest.mark.parametrize("name", ["dev_tied", "dev_untied"])
def test_greedy_tokens_are_the_references(parity: Path, tmp_path: Path, name: str, full: bool) -> None:
    """Guidance 1, 3 and 6 in one batch: it belongs to the request, not to the engine."""
    folder = parity / "simplear" / name
    expected = json.loads((folder / "expected.json").read_text())
    cases = expected["cases"]
    assert {case["cfg_scale"] for case in cases} == {1.0, 3.0, 6.0}
    [side] = {case["grid"] for case in cases}
    requests = [
        ImageRequest(
            (tuple(case["prompt_ids"]), tuple(case["negative_ids"]))[: 1 if case["cfg_scale"] == 1 else 2],
            0,
            case["cfg_scale"],
            temperature=0.0,
        )
        for case in cases
    ]
    protocol = DrawProtocol("test", 64, guidance=3.0, full_vocab=full)
    wide_folder = widen_checkpoint(folder, tmp_path / "wide")
    with reference_engine(wide_folder, side, protocol=protocol) as engine:
        outputs = engine.driver.generate(requests)
        tokens = [[code + 120 for code in image] for image in codes(engine, outputs)]
    vocabulary = "full_vocab" if full else "visual_only"
    assert tokens == [case[f"tokens_{vocabulary}"] for case in cases]
    assert [output.restarts for output in outputs] == [0] * len(cases)


@pytest.fixture(scope="module")
def demo() -> Iterator[VllmEngine]:
    with demo_engine() as engine:
        yield engine


@pytest.mark.parametrize("number", [1, 2, 7, 32])
def test_sampled_tokens_are_natives_for_any_number_of_pairs(demo: VllmEngine, number: int) -> None:
    requests = demo_requests(number)
    outputs = demo.driver.generate(requests)
    assert codes(demo, outputs) == native_codes(requests)
    assert sum(output.restarts for output in outputs) == 0


def test_every_request_has_its_own_sampling_parameters(demo: VllmEngine) -> None:
    requests = demo_requests(6)
    requests = [
        requests[0],
        replace(requests[1], guidance=6.0, temperature=0.7),
        replace(requests[2], top_k=5),
        replace(requests[3], top_p=0.5, temperature=1.3),
        replace(requests[4], prompts=requests[4].prompts[:1], guidance=1.0),
        replace(requests[5], temperature=0.0),
    ]
    assert codes(demo, demo.driver.generate(requests)) == native_codes(requests)


def test_guidance_off_uses_one_request_per_image() -> None:
    requests = demo_requests(5, guidance=1.0)
    with demo_engine(guidance=1.0) as engine:
        assert engine.engine_args()["max_num_seqs"] == 64
        added = []
        add = engine.driver.engine.add_request
        engine.driver.engine.add_request = lambda name, *rest: added.append(name) or add(name, *rest)
        assert codes(engine, engine.driver.generate(requests)) == native_codes(requests)
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
OUT_OF_SYNC_WITHOUT_WAVES = {
    "prefill over several steps",
    "an odd batch",
    "asynchronous, odd, split",
    "shared prefixes, split",
}


@pytest.mark.parametrize("waves", [True, False], ids=["waves", "no_waves"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pairs_stay_in_sync_or_are_restarted(scenario: str, waves: bool) -> None:
    requests = demo_requests(12)
    with demo_engine(waves=waves, batch_size=12, **SCENARIOS[scenario]) as engine:
        outputs = engine.driver.generate(requests)
        assert codes(engine, outputs) == native_codes(requests)
    restarts = sum(output.restarts for output in outputs)
    if waves:
        assert restarts == 0
    elif scenario in OUT_OF_SYNC_WITHOUT_WAVES:
        assert restarts > 0, "no pair got out of sync, so the test proves nothing"


@pytest.mark.parametrize("waves", [True, False], ids=["waves", "no_waves"])
def test_the_core_may_be_another_process(monkeypatch: pytest.MonkeyPatch, waves: bool) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    requests = demo_requests(12)
    with demo_engine(waves=waves, batch_size=12, max_num_seqs=7) as engine:
        outputs = engine.driver.generate(requests)
        assert codes(engine, outputs) == native_codes(requests)
    assert not waves or sum(output.restarts for output in outputs) == 0
