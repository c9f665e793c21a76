"""Tokens of both engines equal the reference's own guided generation on tiny weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.decoding.loop import BatchDecoder, Vocabulary
from sar_eval.decoding.noise import noise_keys
from sar_eval.decoding.speculation import SpeculativeDecoder
from sar_eval.decoding.transformer import Decoder
from sar_eval.engines.hf import HfEngine
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.image_plan import ImagePlan, guidance_weights
from sar_eval.families.simplear import Checkpoint
from sar_eval.types import DrawProtocol

WEIGHTS = ("dev_tied", "dev_untied")
Decode = Callable[[Path, dict[str, Any], DrawProtocol, list[dict[str, Any]]], list[list[int]]]


def _prompts(cases: list[dict[str, Any]]) -> list[list[int]]:
    guided = cases[0]["cfg_scale"] != 1
    return [c["prompt_ids"] for c in cases] + [c["negative_ids"] for c in cases] * guided


def _decoder_inputs(
    folder: Path, data: dict[str, Any], protocol: DrawProtocol, cases: list[dict[str, Any]]
) -> Any:
    config = DecoderConfig.from_dict(json.loads((folder / "config.json").read_text()))
    decoder = Decoder(config, load_file(folder / "model.safetensors"))
    visual_ids = range(data["text_vocab"], data["text_vocab"] + data["visual_vocab"])
    vocabulary = Vocabulary(decoder, visual_ids, protocol.full_vocab)
    side, weights = cases[0]["grid"], guidance_weights(protocol.guidance)
    plan = ImagePlan(side, side, weights)
    keys = noise_keys([0] * len(cases), plan.codes, torch.device("cpu"))
    return decoder, vocabulary, plan, _prompts(cases), keys


def native(
    folder: Path, data: dict[str, Any], protocol: DrawProtocol, cases: list[dict[str, Any]]
) -> list[list[int]]:
    decoder, vocabulary, plan, prompts, keys = _decoder_inputs(folder, data, protocol, cases)
    length = max(map(len, prompts))
    with torch.inference_mode():
        batch = BatchDecoder(decoder, vocabulary, protocol, len(cases), length, plan)
        batch.run(prompts, keys)
    return batch.sampled_ids.tolist()


def speculative(
    folder: Path, data: dict[str, Any], protocol: DrawProtocol, cases: list[dict[str, Any]]
) -> list[list[int]]:
    decoder, vocabulary, plan, prompts, keys = _decoder_inputs(folder, data, protocol, cases)
    with torch.inference_mode():
        speculation = SpeculativeDecoder(decoder, vocabulary, protocol, plan, prompts, keys, window=8)
        speculation.run()
    return speculation.sampled_ids[:, : len(keys)].tolist()


class _ReferenceFiles(Checkpoint):
    """The reference's weights, which come without tokenizers."""

    text_vocab_size = 120
    codebook_size = 1000


def hf(
    folder: Path, data: dict[str, Any], protocol: DrawProtocol, cases: list[dict[str, Any]]
) -> list[list[int]]:
    assert (data["text_vocab"], data["visual_vocab"]) == (120, 1000)
    engine = HfEngine.__new__(HfEngine)
    engine.checkpoint, engine.protocol, engine.device, engine.dtype = (
        _ReferenceFiles(folder.name, folder, folder),
        protocol,
        "cpu",
        "float32",
    )
    side = cases[0]["grid"]
    engine.plan = ImagePlan(side, side, guidance_weights(protocol.guidance))
    prompts, number = _prompts(cases), len(cases)
    keys = noise_keys([0] * number, engine.plan.codes, torch.device("cpu"))
    engine.load()
    with torch.inference_mode():
        branches = [prompts[start : start + number] for start in range(0, len(prompts), number)]
        return engine.decode_ids(branches, keys)[0].tolist()


@pytest.mark.parametrize("vocabulary", ["visual_only", "full_vocab"])
@pytest.mark.parametrize("decode", [native, speculative, hf])
@pytest.mark.parametrize("name", WEIGHTS)
def test_greedy_tokens_equal_the_references(
    parity: Path, name: str, decode: Decode, vocabulary: str
) -> None:
    folder = parity / "simplear" / name
    expected = json.loads((folder / "expected.json").read_text())
    assert {case["cfg_scale"] for case in expected["cases"]} == {1.0, 3.0, 6.0}
    for case in expected["cases"]:
        full = vocabulary == "full_vocab"
        protocol = DrawProtocol("test", 64, guidance=case["cfg_scale"], temperature=0, full_vocab=full)
        [tokens] = decode(folder, expected, protocol, [case])
        assert tokens == case[f"tokens_{vocabulary}"]
        if full:
            assert sum(token < 120 for token in tokens) == case["text_tokens"]


@pytest.mark.parametrize("decode", [native, speculative, hf])
def test_a_batch_of_all_cases_gives_each_its_own_tokens(parity: Path, decode: Decode) -> None:
    folder = parity / "simplear" / "dev_tied"
    expected = json.loads((folder / "expected.json").read_text())
    cases = [case for case in expected["cases"] if case["cfg_scale"] == 6]
    cases += [case | {"prompt_ids": case["prompt_ids"]} for case in cases]
    protocol = DrawProtocol("test", 64, guidance=6.0, temperature=0)
    tokens = decode(folder, expected, protocol, cases)
    assert tokens == [case["tokens_visual_only"] for case in cases]
