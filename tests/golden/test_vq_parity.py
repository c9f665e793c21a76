"""Pixels of Janus, LlamaGen and Emu3 against those of their authors' code, in both namings."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.families.emu3_vision import match_emu3_vision
from sar_eval.families.pixel_decoder import rounded_half_up, truncated
from sar_eval.families.vq16 import match_vq16
from tests.parity_data import needs
from tests.picture_decoders import decoder, difference, shapes

# Bits are equal on the kind of processor that made the data, and floats everywhere to this.
FLOATS = 2e-5
# Of one picture alone: the original decodes four at once, and convolutions of one sum in another order.
EMU3_ALONE = 5e-6
CASES = {
    "janus": ("janus/model.safetensors", match_vq16, truncated),
    "llamagen": ("llamagen/vq.safetensors", match_vq16, rounded_half_up),
    "emu3": ("emu3/vq/model.safetensors", match_emu3_vision, truncated),
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(parity):
    return needs(parity / "emu3" / "vq").parents[1]


@pytest.fixture(scope="module")
def weights(folder):
    return {name: load_file(folder / path) for name, (path, *_) in CASES.items()}


@pytest.fixture(scope="module")
def decoders(weights):
    return {name: decoder(weights[name], match, grey) for name, (_, match, grey) in CASES.items()}


def _grid(codes, height):
    return codes.view(len(codes), height, -1)


@pytest.mark.parametrize("scale", [1, 3, 5])
def test_janus_grey_levels_are_the_authors(folder, decoders, scale) -> None:
    codes = _grid(load_file(folder / "janus/expected.safetensors")[f"greedy_{scale}"], 4)
    images = decoders["janus"].decode(codes)
    assert torch.equal(images.pixels, load_file(folder / "janus/pixels.safetensors")[f"uint8_{scale}"])
    assert images.finite.all()


def test_janus_floats_are_the_authors(folder, decoders) -> None:
    pixels = load_file(folder / "janus/pixels.safetensors")
    codes = _grid(load_file(folder / "janus/expected.safetensors")["greedy_5"], 4)
    assert difference(decoders["janus"].decode_floats(codes), pixels["float_5"]) < FLOATS
    levels = truncated(pixels["float_5"]).to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(levels, pixels["uint8_5"])


@pytest.mark.parametrize("side", [4, 6])
def test_llamagen_pixels_are_the_authors(folder, decoders, side) -> None:
    pixels = load_file(folder / "llamagen/pixels.safetensors")
    codes = _grid(load_file(folder / "llamagen/expected.safetensors")[f"g{side}_cfg7.5_greedy"], side)
    assert torch.equal(decoders["llamagen"].decode(codes).pixels, pixels[f"g{side}_uint8"])
    assert difference(decoders["llamagen"].decode_floats(codes[:1]), pixels[f"g{side}_float"]) < FLOATS


@pytest.mark.parametrize("name", ["janus", "llamagen"])
def test_a_grid_that_is_not_square(folder, decoders, name) -> None:
    pixels = load_file(folder / name / "pixels.safetensors")
    floats = decoders[name].decode_floats(_grid(pixels["codes_2x3"], 2))
    assert difference(floats, pixels["codes_2x3_float"]) < FLOATS


def test_emu3_pixels_are_the_authors(folder, weights, decoders) -> None:
    """Theirs are the first of four frames each, of four pictures in one call; ours are computed alone."""
    pixels = load_file(folder / "emu3/pixels.safetensors")
    codes = _grid(load_file(folder / "emu3/expected.safetensors")["greedy_3"], 4)
    together = decoder(weights["emu3"], match_emu3_vision, at_once=4)
    assert difference(together.decode_floats(codes), pixels["float_3"]) < FLOATS
    assert torch.equal(together.decode(codes).pixels, pixels["uint8_3"])

    assert difference(decoders["emu3"].decode_floats(codes), pixels["float_3"]) < EMU3_ALONE
    unequal = decoders["emu3"].decode(codes).pixels.short() - pixels["uint8_3"].short()
    assert unequal.abs().max() <= 1
    assert unequal.count_nonzero() <= 2


def _in_transformers_names(weights, names, ours):
    """The file as transformers names it; 1x1 convolutions whose names say `proj` become matrices."""
    return {
        names[ours + name]: tensor[..., 0, 0] if "_proj.weight" in names[ours + name] else tensor
        for name, tensor in weights.items()
        if names.get(ours + name)
    }


@pytest.mark.parametrize(("name", "ours"), [("janus", ""), ("emu3", "vq/")])
def test_transformers_names_give_the_same_pixels(folder, weights, decoders, name, ours) -> None:
    names = json.loads((folder / name / "hf_names.json").read_text())
    plain = {stored: new for stored, new in names.items() if not isinstance(new, list)}
    tensors = _in_transformers_names(weights[name], plain, ours)
    _, match, _ = CASES[name]
    stored, original = match(shapes(tensors), name).stored, match(shapes(weights[name]), name).stored
    assert stored == {key: plain[ours + original[key]] for key in original}
    codes = torch.arange(12).view(2, 2, 3)
    renamed = decoder(tensors, match).decode_floats(codes)
    assert torch.equal(renamed, decoders[name].decode_floats(codes))
