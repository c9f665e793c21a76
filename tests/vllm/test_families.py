"""Every token family on vLLM: tokens of native and hf, and an engine that guides otherwise is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.engines.vllm import VllmEngine
from sar_eval.errors import BadInput
from sar_eval.families.recognise import find_checkpoint
from sar_eval.vllm_guided.driver import VllmDriver
from sar_eval.vllm_guided.guidance_check import GuidanceCheckFailed
from sar_eval.vllm_guided.pairing import PairSampler
from tests.family_cases import FAMILY_CASES, FamilyCase, plan_otherwise, tokens, tokens_of


@pytest.fixture(scope="module", params=FAMILY_CASES)
def family(request: pytest.FixtureRequest) -> FamilyCase:
    return FAMILY_CASES[request.param]


@pytest.fixture(scope="module")
def checkpoint(family: FamilyCase, tmp_path_factory: pytest.TempPathFactory) -> str:
    return family.checkpoint(tmp_path_factory.mktemp("family"))


@pytest.mark.parametrize("kind", ["guided", "unguided"])
def test_sampled_tokens_are_those_of_native_and_hf(family: FamilyCase, checkpoint: str, kind: str) -> None:
    protocol, draws = family.protocols()[kind], family.draws()
    refused = dict(family.refused_by)
    if "vllm" in refused:
        with pytest.raises(BadInput, match=refused["vllm"]):
            VllmEngine(checkpoint, protocol)
        return
    expected = tokens(NativeEngine(checkpoint, protocol, batch_size=1), draws)
    assert len(set(expected.values())) > 1
    if "hf" not in refused:
        assert tokens(HfEngine(checkpoint, protocol), draws) == expected
    with VllmEngine(checkpoint, protocol, batch_size=3) as engine:
        for number in (1, 3, len(draws)):
            drawn = tokens_of(engine, draws[:number])
            assert drawn == {key: expected[key] for key in drawn}
            assert len(drawn) == number


def test_a_rectangle_has_the_tokens_of_native(family: FamilyCase, checkpoint: str) -> None:
    _skip_refused(family)
    pixels = find_checkpoint(checkpoint).downsample
    size = {"resolution": 5 * pixels, "width": 5 * pixels, "height": 4 * pixels}
    protocol, draws = replace(family.protocol, **size), family.draws()[:2]
    expected = tokens(NativeEngine(checkpoint, protocol), draws)
    assert {len(codes) for codes in expected.values()} == {20}
    assert tokens(VllmEngine(checkpoint, protocol), draws) == expected


def test_a_plan_may_force_tokens_and_have_three_branches_and_weights_by_code(
    family: FamilyCase, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows get out of sync, and images go on from the tokens that all their rows have."""
    _skip_refused(family)
    plan_otherwise(monkeypatch, checkpoint)
    protocol, draws = family.protocol, family.draws()
    expected = tokens(NativeEngine(checkpoint, protocol, batch_size=1), draws)
    with VllmEngine(checkpoint, protocol, batch_size=8, waves=False, max_num_seqs=4) as engine:
        outputs = engine.driver.generate(engine.requests(draws))
        drawn = [tuple(engine._codes(output)[0]) for output in outputs]
        assert [output.error for output in outputs] == [""] * len(draws)
    assert dict(zip(expected, drawn, strict=True)) == expected
    assert sum(output.restarts for output in outputs) > 0
    assert {len(output.tokens) for output in outputs} == {engine.plan.slots}


def _skip_refused(family: FamilyCase) -> None:
    if "vllm" in dict(family.refused_by):
        pytest.skip("vLLM does not draw with this family")


def unguided(parameters: Any) -> Any:
    return replace(parameters, protocol=replace(parameters.protocol, guidance=1.0 + 1e-9), weights=None)


def test_an_engine_without_guidance_does_not_start(
    family: FamilyCase, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _skip_refused(family)
    sample = PairSampler._sample
    monkeypatch.setattr(
        PairSampler,
        "_sample",
        lambda self, logits, group, parameters: sample(self, logits, group, unguided(parameters)),
    )
    with (
        pytest.raises(GuidanceCheckFailed, match="nothing was drawn"),
        VllmEngine(checkpoint, family.protocol),
    ):
        pass


def test_an_engine_that_draws_another_prompt_does_not_start(
    family: FamilyCase, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image's rows get the prompts of the next one's, as if requests had been mixed up."""
    _skip_refused(family)
    generate = VllmDriver.generate

    def mixed_up(self: VllmDriver, requests: Any) -> Any:
        others = [*requests[1:], *requests[:1]]
        swapped = [replace(r, prompts=o.prompts) for r, o in zip(requests, others, strict=True)]
        return generate(self, swapped)

    monkeypatch.setattr(VllmDriver, "generate", mixed_up)
    with (
        pytest.raises(GuidanceCheckFailed, match="nothing was drawn"),
        VllmEngine(checkpoint, family.protocol),
    ):
        pass


def test_two_processes_may_share_the_weights_that_a_family_reads(tmp_path_factory: Any) -> None:
    """With the biases of Janus' output, of which each process has a part."""
    case = FAMILY_CASES["janus"]
    checkpoint = case.checkpoint(tmp_path_factory.mktemp("family"))
    expected = tokens(NativeEngine(checkpoint, case.protocol), case.draws())
    assert tokens(VllmEngine(checkpoint, case.protocol, tensor_parallel_size=2), case.draws()) == expected
