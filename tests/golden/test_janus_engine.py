"""Janus from its folder to pixels by the engine native, against its authors' code, in both namings."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sar_eval.engines.native import NativeEngine
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.parity_data import needs

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 64


@pytest.fixture(scope="module")
def source(parity):
    return needs(parity / "janus")


@pytest.fixture(scope="module", params=["original", "transformers"])
def folder(source, request, tmp_path_factory):
    """A checkpoint's folder as its publisher has it."""
    if request.param == "original":
        return source
    out = tmp_path_factory.mktemp("janus") / "transformers"
    out.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, out / name)
    shutil.copy(source / "hf_config.json", out / "config.json")
    names, stored = (
        json.loads((source / "hf_names.json").read_text()),
        load_file(source / "model.safetensors"),
    )
    renamed = {names[name]: tensor for name, tensor in stored.items() if isinstance(names[name], str)}
    save_file(renamed, out / "model.safetensors")
    return out


@pytest.fixture(scope="module")
def cases(source):
    return json.loads((source / "cases.json").read_text())["prompts"]


def _drawn(folder, cases, protocol, **options):
    draws = [make_draw(Prompt(f"p{n}", case["text"]), 0, 0) for n, case in enumerate(cases)]
    with NativeEngine(str(folder), protocol, **options) as engine:
        found = {generation.key: generation for generation in engine.generate(draws)}
    return [found[draw.key] for draw in draws]


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("scale", [1, 3, 5])
def test_greedy_tokens_and_pixels_are_the_authors(folder, source, cases, scale, speculate) -> None:
    protocol = DrawProtocol("greedy", SIDE, guidance=float(scale), temperature=0)
    drawn = _drawn(folder, cases, protocol, speculate=speculate)
    tokens = load_file(source / "expected.safetensors")[f"greedy_{scale}"]
    assert [list(generation.tokens) for generation in drawn] == tokens.tolist()
    pixels = load_file(source / "pixels.safetensors")[f"uint8_{scale}"].numpy()
    for generation, expected in zip(drawn, pixels, strict=True):
        with Image.open(io.BytesIO(generation.image)) as image:
            assert np.array_equal(np.asarray(image), expected)


def test_sampled_tokens_do_not_depend_on_the_batch_or_speculation(folder, cases) -> None:
    protocol = DrawProtocol("sampled", SIDE, guidance=5.0)
    options = ({"batch_size": 1}, {"batch_size": 3}, {"speculate": True})
    one, *others = ([g.tokens for g in _drawn(folder, cases, protocol, **each)] for each in options)
    assert others == [one, one]
    assert len(set(one)) == len(cases)


def test_what_the_files_say(folder) -> None:
    found = find_checkpoint(str(folder))
    assert (found.family, found.codebook_size, found.native_resolution, found.downsample) == (
        "janus",
        64,
        SIDE,
        16,
    )
    assert found.visual_ids == range(480, 544)


def test_the_roles_of_janus_1_3b(folder, cases) -> None:
    found = find_checkpoint(str(folder))
    protocol = DrawProtocol("words", SIDE, guidance=5.0, template="janus-1.3b")
    for case in cases:
        ids, negative = found.branches(case["text"], "", protocol, (4, 4))
        assert list(ids) == case["ids_1_3b"]
        assert len(negative) == len(ids)


def test_both_namings_have_the_same_codes(source, folder) -> None:
    assert find_checkpoint(str(folder)).encoder_digest == find_checkpoint(str(source)).encoder_digest


def test_weights_are_computed_in_the_dtype_that_is_asked_for(folder) -> None:
    """The files are bfloat16: vectors of codes that were rounded to it would move greedy tokens."""
    weights = find_checkpoint(str(folder)).read_weights("cpu", torch.float32)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    codes = weights["model.embed_tokens.weight"][480:]
    assert not torch.equal(codes, codes.bfloat16().float())
