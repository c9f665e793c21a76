"""The decoder against the reference's own guided generation on tiny SimpleAR-shaped weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.engines.native import decode
from sar_eval.models.noise import noise_keys
from sar_eval.models.qwen2 import Decoder
from sar_eval.models.shape import Shape
from sar_eval.types import DrawProtocol


@pytest.mark.parametrize("name", ["dev_tied", "dev_untied"])
def test_greedy_visual_tokens_are_the_references(parity: Path, name: str) -> None:
    folder = parity / "simplear" / name
    expected = json.loads((folder / "expected.json").read_text())
    shape = Shape.read(json.loads((folder / "config.json").read_text()))
    decoder = Decoder(shape, load_file(folder / "model.safetensors"))
    text, visual = expected["text_vocab"], expected["visual_vocab"]
    for case in expected["cases"]:
        protocol = DrawProtocol("test", 64, guidance=case["cfg_scale"], temperature=0)
        prompts = [case["prompt_ids"]] + [case["negative_ids"]] * (case["cfg_scale"] != 1)
        keys = noise_keys([0], case["grid"] ** 2, torch.device("cpu"))
        with torch.inference_mode():
            codes = decode(decoder, range(text, text + visual), protocol, prompts, keys)
        assert [code + text for code in codes[0].tolist()] == case["tokens_visual_only"]


def test_a_batch_of_all_cases_gives_each_its_own_tokens(parity: Path) -> None:
    folder = parity / "simplear" / "dev_tied"
    expected = json.loads((folder / "expected.json").read_text())
    shape = Shape.read(json.loads((folder / "config.json").read_text()))
    decoder = Decoder(shape, load_file(folder / "model.safetensors"))
    cases = [case for case in expected["cases"] if case["cfg_scale"] == 6]
    assert len({len(case["prompt_ids"]) for case in cases}) > 1 or len(cases) == 1
    protocol = DrawProtocol("test", 64, guidance=6.0, temperature=0)
    prompts = [case["prompt_ids"] for case in cases] + [case["negative_ids"] for case in cases]
    keys = noise_keys([0] * len(cases), cases[0]["grid"] ** 2, torch.device("cpu"))
    with torch.inference_mode():
        codes = decode(decoder, range(120, 1120), protocol, prompts, keys)
    assert [[c + 120 for c in row] for row in codes.tolist()] == [c["tokens_visual_only"] for c in cases]
