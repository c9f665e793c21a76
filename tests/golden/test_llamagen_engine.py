"""LlamaGen from its files to pixels by the engine native, against its authors' code."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sar_eval.engines.native import NativeEngine
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.parity_data import needs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def source(parity):
    return needs(parity / "llamagen")


@pytest.fixture(scope="module")
def cases(source):
    return json.loads((source / "cases.json").read_text())["prompts"]


@pytest.fixture(scope="module", params=[4, 6])
def checkpoint(source, request, tmp_path_factory):
    """Codes along a side, and a folder with the authors' file names: torch files for one size."""
    side, out = request.param, tmp_path_factory.mktemp("llamagen") / "c"
    out.mkdir()
    names = (("gpt", f"t2i_tiny_stage1_{16 * side}"), ("vq", "vq_ds16_t2i"))
    for theirs, ours in names:
        if side == 4:
            torch.save(
                {"model": load_file(source / f"{theirs}.safetensors"), "steps": 1}, out / f"{ours}.pt"
            )
        else:
            shutil.copy(source / f"{theirs}.safetensors", out / f"{ours}.safetensors")
    shutil.copytree(source / "t5", out / "t5")
    heads = json.loads((source / "shape.json").read_text())["gpt"]["n_head"]
    (out / "sar_eval.json").write_text(json.dumps({"heads": heads}))
    return side, out


def _drawn(checkpoint, cases, protocol, **options):
    draws = [make_draw(Prompt(f"p{n}", case["text"]), 0, 0) for n, case in enumerate(cases)]
    with NativeEngine(str(checkpoint[1]), protocol, **options) as engine:
        found = {generation.key: generation for generation in engine.generate(draws)}
    return [found[draw.key] for draw in draws]


def _protocol(checkpoint, scale, **more):
    return DrawProtocol("x", 16 * checkpoint[0], guidance=scale, truncate=True, **more)


@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("scale", [1.0, 4.0, 7.5])
def test_greedy_tokens_are_the_authors(checkpoint, source, cases, scale, speculate) -> None:
    protocol = _protocol(checkpoint, scale, temperature=0, top_k=1000)
    drawn = _drawn(checkpoint, cases, protocol, speculate=speculate)
    tokens = load_file(source / "expected.safetensors")[f"g{checkpoint[0]}_cfg{scale:g}_greedy"]
    assert [list(generation.tokens) for generation in drawn] == tokens.tolist()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_pixels_are_the_authors(checkpoint, source, cases, batch_size) -> None:
    drawn = _drawn(checkpoint, cases, _protocol(checkpoint, 7.5, temperature=0), batch_size=batch_size)
    pixels = load_file(source / "pixels.safetensors")[f"g{checkpoint[0]}_uint8"].numpy()
    for generation, expected in zip(drawn, pixels, strict=True):
        with Image.open(io.BytesIO(generation.image)) as image:
            assert np.array_equal(np.asarray(image), expected)


def test_sampled_tokens_do_not_depend_on_the_batch_or_speculation(checkpoint, cases) -> None:
    protocol = _protocol(checkpoint, 7.5, top_k=100)
    options = ({"batch_size": 1}, {"batch_size": 3}, {"speculate": True})
    one, *others = ([g.tokens for g in _drawn(checkpoint, cases, protocol, **each)] for each in options)
    assert others == [one, one]
    assert len(set(one)) == len(cases)


def test_what_the_files_say(checkpoint) -> None:
    side, folder = checkpoint
    found = find_checkpoint(str(folder))
    facts = (found.family, found.codebook_size, found.native_resolution, found.decoder_config.switches.grid)
    assert facts == ("llamagen", 256, 16 * side, (side, side))
    assert found.visual_ids == range(256)
