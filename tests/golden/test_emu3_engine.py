"""Emu3 from its folder to pixels by the engine native, against its authors' code, in both forms."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sar_eval.decoding.sampling import apply_top_k_top_p
from sar_eval.engines.native import NativeEngine
from sar_eval.families.emu3 import PROTOCOLS
from sar_eval.families.emu3_tokenizer import FIRST_TOKENS
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.parity_data import needs
from tests.tiny_emu3 import in_transformers_form, tokenizer_json

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = (4, 5)
OFFICIAL = DrawProtocol("emu3", 40, width=40, height=32, **PROTOCOLS["emu3"])
FORMS = ("original", "transformers", "saved by transformers")


@pytest.fixture(scope="module")
def source(parity):
    return needs(parity / "emu3")


@pytest.fixture(scope="module", params=FORMS)
def options(source, request, tmp_path_factory):
    """What the engine is given: the checkpoint as its publisher has it."""
    if request.param == "original":
        return {"checkpoint": str(source), "visual_tokenizer": str(source / "vq")}
    out = tmp_path_factory.mktemp("emu3")
    return {"checkpoint": str(_in_one_folder(source, out, request.param != "transformers"))}


def _in_one_folder(source, out, saved):
    """As transformers' converter writes it, in two types of numbers; `saved`: under names of files."""
    config = json.loads((source / "config.json").read_text())
    text = {key: value for key, value in config.items() if not key.endswith(("_token_id", "image_area"))}
    text["model_type"] = "emu3_text_model"
    (out / "config.json").write_text(
        json.dumps({"model_type": "emu3", "text_config": text, "image_area": config["image_area"]})
    )
    tokens = [*FIRST_TOKENS, *(source / "emu3_vision_tokens.txt").read_text().split("\n")[:-1]]
    (out / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokens)))
    names = json.loads((source / "hf_names.json").read_text())
    network = {names[name]: t for name, t in load_file(source / "model.safetensors").items()}
    tensors = network | _vision(source, names)
    if saved:
        tensors = {_saved(name): tensor for name, tensor in tensors.items()}
    save_file(tensors, out / "model.safetensors")
    return out


def _saved(name):
    """As its table of renamed weights has it (conversion_mapping.py, "emu3"), the other way round."""
    if name.startswith("model.text_model."):
        return name.replace("model.text_model.", "text_model.model.")
    return name.removeprefix("model.") if "vqmodel" in name else f"text_model.{name}"


def _vision(source, names):
    """The whole visual tokenizer; what we rename of it must have the names of the parity data."""
    stored = load_file(source / "vq" / "model.safetensors")
    decoding = {
        n: t for n, t in stored.items() if n.startswith(("decoder.", "post_quant_conv.", "quantize."))
    }
    renamed = in_transformers_form(decoding, "model.vqmodel.")
    assert set(renamed) <= {names[f"vq/{name}"] for name in decoding if f"vq/{name}" in names}
    return renamed


@pytest.fixture(scope="module")
def cases(source):
    return json.loads((source / "cases.json").read_text())["prompts"]


@pytest.fixture(scope="module")
def expected(source):
    return load_file(source / "expected.safetensors") | load_file(source / "pixels.safetensors")


def _drawn(options, cases, protocol, **more):
    draws = [make_draw(Prompt(f"p{n}", case["text"]), 0, 0) for n, case in enumerate(cases)]
    with NativeEngine(protocol=protocol, **options, **more) as engine:
        found = {generation.key: generation for generation in engine.generate(draws)}
    return [found[draw.key] for draw in draws]


@pytest.mark.parametrize("more", [{"batch_size": 1}, {"batch_size": 3}, {"speculate": True}], ids=str)
@pytest.mark.parametrize("scale", [1, 3])
def test_greedy_tokens_and_pixels_are_the_authors(options, cases, expected, scale, more) -> None:
    """Prompts are of several lengths, and the negative text of another."""
    protocol = replace(OFFICIAL, guidance=float(scale), temperature=0)
    drawn = _drawn(options, cases, protocol, **more)
    assert [list(generation.tokens) for generation in drawn] == expected[f"greedy_{scale}"].tolist()
    if scale == 3:
        images = [np.asarray(Image.open(io.BytesIO(generation.image))) for generation in drawn]
        unequal = np.stack(images).astype(int) - expected["uint8_3"].numpy()
        # The authors decode four pictures at once, and sums of convolutions come in another order.
        assert unequal.shape == (4, 32, 40, 3)
        assert abs(unequal).max() <= 1
        assert np.count_nonzero(unequal) <= 2


def test_sampled_tokens_do_not_depend_on_the_batch_or_speculation(options, cases) -> None:
    each = ({"batch_size": 1}, {"batch_size": 3}, {"speculate": True}, {"speculate": True, "window": 2})
    one, *others = ([g.tokens for g in _drawn(options, cases, OFFICIAL, **more)] for more in each)
    assert others == [one] * 3
    assert len(set(one)) == len(cases)


def test_rows_are_the_authors(options, source, cases) -> None:
    found = find_checkpoint(*options.values())
    every = json.loads((source / "cases.json").read_text())
    for case in cases:
        rows = found.branches(case["text"], OFFICIAL.negative_prompt, OFFICIAL, GRID)
        assert [list(row) for row in rows] == [case["ids"], every["negative_ids"]]
    plan = found.plan(OFFICIAL, GRID)
    assert plan.code_slots == every["steps_with_codes"]
    answer = every["full_sequence_of_prompt_0_at_3"]
    assert dict(plan.forced) == {slot: answer[slot] for slot in plan.forced}
    assert len(plan.forced) + plan.codes == len(answer)


def test_the_protocols_top_k_keeps_the_codes_that_the_authors_keep(expected) -> None:
    for scale in (1, 3):
        scores = expected[f"scores_{scale}"]
        bits = expected[f"top2048_{scale}"][: len(scores)]
        kept = apply_top_k_top_p(scores.flatten(0, 1), OFFICIAL.top_k, 1.0).isfinite()
        wanted = np.unpackbits(bits.numpy(), axis=-1, bitorder="little")[..., : scores.shape[-1]]
        assert torch.equal(kept.view(scores.shape), torch.from_numpy(wanted).bool())
        assert not kept.all()


def test_what_the_files_say(options) -> None:
    found = find_checkpoint(*options.values())
    assert (found.family, found.codebook_size, found.native_resolution, found.downsample) == (
        "emu3",
        2304,
        32,
        8,
    )
    assert found.visual_ids == range(467, 2771)


def test_both_forms_have_the_same_codes(source, options) -> None:
    original = find_checkpoint(str(source), str(source / "vq"))
    assert find_checkpoint(*options.values()).encoder_digest == original.encoder_digest
