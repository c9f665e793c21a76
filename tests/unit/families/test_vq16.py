"""The VQ-16 decoder: against transformers' Janus, both namings, refused files, rows that do not mix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.families.pixel_decoder import PixelDecoder, rounded_half_up, truncated
from sar_eval.families.vq16 import ORIGINAL, match_vq16
from tests.picture_decoders import decoder, difference, file_of, randomized, renamed, shapes

transformers = pytest.importorskip("transformers", reason="needs the extra hf")
PREFIXES = {"transformers": "model.vqmodel.", "janus": "gen_vision_model.", "llamagen": ""}
STEPS = {"transformers": 7, "janus": 1, "llamagen": 7}  # which tensors are tried
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    options = {"num_embeddings": 24, "latent_channels": 6, "base_channels": 32, "num_patches": 3}
    config = transformers.JanusVQVAEConfig(channel_multiplier=[1, 1, 2], num_res_blocks=1, **options)
    return randomized(transformers.JanusVQVAE(config))


@pytest.fixture(scope="module")
def files(model):
    """One file a naming, with tensors of the checkpoint's other networks where there are some."""
    tensors = file_of(model, PREFIXES["transformers"])
    found = {"transformers": tensors | {"model.language_model.norm.weight": torch.ones(4)}}
    for name in ("janus", "llamagen"):
        found[name] = renamed(tensors, match_vq16, ORIGINAL, PREFIXES[name])
        found[name] |= {
            PREFIXES[name] + "quantize.codebook_used": torch.zeros(8),
            PREFIXES[name] + "encoder.conv_in.bias": torch.zeros(8),
            PREFIXES[name] + "quant_conv.weight": torch.zeros(8),
        }
    found["janus"]["gen_head.vision_head.bias"] = torch.zeros(24)
    return found


@pytest.fixture(scope="module")
def ours(files) -> PixelDecoder:
    return decoder(files["transformers"], match_vq16)


def _codes(*size: int) -> Tensor:
    return torch.randint(24, size, generator=torch.Generator().manual_seed(1), dtype=torch.int32)


def test_pixels_are_those_of_transformers(model, ours) -> None:
    codes = _codes(2, 3, 3)
    with torch.no_grad():
        expected = torch.cat([model.decode(row.view(1, -1).long()) for row in codes])
    assert difference(ours.decode_floats(codes), expected) < 2e-5
    assert (ours.codebook_size, ours.downsample) == (24, 4)


def test_with_exact_arithmetic_nothing_is_left_between_them(model, files) -> None:
    network = match_vq16(shapes(files["janus"]), "file").load(files["janus"], "cpu", torch.float64)
    codes = _codes(2, 3, 3).long()
    with torch.no_grad():
        expected = model.double().decode(codes.flatten(1))
        model.float()
        assert difference(network(codes), expected) < 1e-11


@pytest.mark.parametrize("grid", [(1, 1), (2, 5), (4, 1)])
def test_any_grid_is_decoded(ours, grid) -> None:
    images = ours.decode(_codes(2, *grid))
    assert images.pixels.shape == (2, 4 * grid[0], 4 * grid[1], 3)
    assert images.pixels.dtype == torch.uint8


@pytest.mark.parametrize("name", ["janus", "llamagen"])
def test_original_names_give_the_same_pixels(files, ours, name) -> None:
    codes = _codes(2, 2, 3)
    assert torch.equal(decoder(files[name], match_vq16).decode_floats(codes), ours.decode_floats(codes))


def test_published_shapes_are_taken() -> None:
    with torch.device("meta"):
        model = transformers.JanusVQVAE(transformers.JanusVQVAEConfig())
    shape = match_vq16(shapes(model.state_dict()), "hub").shape
    assert (shape.codes, shape.latent, shape.widths) == (16384, 256, (512, 256, 256, 128, 128))
    assert (shape.blocks, shape.downsample) == (3, 16)


@pytest.mark.parametrize("naming", PREFIXES)
def test_missing_tensors_are_named(files, naming) -> None:
    whole = shapes(files[naming])
    for name in list(match_vq16(whole, "file").stored.values())[:: STEPS[naming]]:
        with pytest.raises(BadInput, match=r"^file: the weights have no tensor '" + name + "'$"):
            match_vq16({n: s for n, s in whole.items() if n != name}, "file")


@pytest.mark.parametrize("naming", PREFIXES)
def test_misshapen_tensors_are_named(files, naming) -> None:
    whole = shapes(files[naming])
    stored = match_vq16(whole, "file").stored
    # Any number of rows is a codebook.
    for name in [stored[ours] for ours in stored if ours != "quantize.embedding.weight"][:: STEPS[naming]]:
        wrong = (whole[name][0] + 32, *whole[name][1:])
        with pytest.raises(BadInput, match=rf"file: tensor '{name}' is \({wrong[0]},"):
            match_vq16(whole | {name: wrong}, "file")
    codebook = stored["quantize.embedding.weight"]
    with pytest.raises(BadInput, match=rf"'{codebook}' is \(24, 9\), .* to be \(24, 8\)"):
        match_vq16(whole | {codebook: (24, 9)}, "file")


@pytest.mark.parametrize("naming", PREFIXES)
@pytest.mark.parametrize("foreign", ["decoder.extra.weight", "decoder.norm_out.scale", "loss.weight"])
def test_a_foreign_tensor_is_named(files, naming, foreign) -> None:
    name = PREFIXES[naming] + foreign
    with pytest.raises(BadInput, match=rf"1 tensors are no part of a VQ-16 decoder \({name}\)"):
        match_vq16(shapes(files[naming]) | {name: (1,)}, "file")


def test_a_level_more_or_less_is_refused(files) -> None:
    whole = shapes(files["llamagen"])
    lost = {name: shape for name, shape in whole.items() if "conv_blocks.1." not in name}
    with pytest.raises(BadInput, match=r"no tensor 'decoder\.conv_blocks\.1\."):
        match_vq16(lost, "file")
    more = whole | {"decoder.conv_blocks.7.res.0.conv1.bias": (32,)}
    with pytest.raises(BadInput, match=r"no tensor 'decoder\.conv_blocks\.2\.upsample\.conv\.weight'"):
        match_vq16(more, "file")


def test_a_file_without_a_decoder_is_refused(files) -> None:
    with pytest.raises(BadInput, match="file has no tensors of a VQ-16 decoder"):
        match_vq16({"model.embed_tokens.weight": (4, 4)}, "file")


def test_widths_that_norms_do_not_take_are_refused(files) -> None:
    with pytest.raises(BadInput, match="norms of 32 groups, and a level here has 48 channels"):
        match_vq16({"decoder.up.0.block.0.conv1.bias": (48,)}, "file")


def test_quantised_weights_are_refused(files) -> None:
    tensors = files["llamagen"]
    whole = tensors | {"decoder.conv_in.weight": tensors["decoder.conv_in.weight"].to(torch.int8)}
    with pytest.raises(BadInput, match=r"int8 \(decoder\.conv_in\.weight"):
        decoder(whole, match_vq16)


def test_tensors_that_were_not_read_are_named(files) -> None:
    matched = match_vq16(shapes(files["llamagen"]), "file")
    with pytest.raises(BadInput, match="no tensor"):
        PixelDecoder(matched, {}, truncated)


@pytest.mark.parametrize("code", [-1, 24])
def test_a_code_outside_the_codebook_is_named(ours, code) -> None:
    with pytest.raises(BadInput, match=rf"file: code {code} is none of the codebook's 0\.\.23"):
        ours.decode(torch.tensor([[[0, code]]]))


def test_a_picture_is_the_same_in_every_batch(ours) -> None:
    codes = _codes(5, 2, 3)
    together = ours.decode_floats(codes)
    for row in range(5):
        assert torch.equal(ours.decode_floats(codes[row : row + 1])[0], together[row])
    assert torch.equal(ours.decode_floats(codes.flip(0)).flip(0), together)


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_pictures_than_said_are_decoded_at_once(files, ours, at_once) -> None:
    bounded = decoder(files["janus"], match_vq16, at_once=at_once)
    seen = []
    bounded.network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    codes = _codes(5, 2, 2)
    assert difference(bounded.decode_floats(codes), ours.decode_floats(codes)) < 2e-5
    assert (max(seen), sum(seen)) == (at_once, 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_no_numbers_is_told_and_spoils_no_other(files, ours, value) -> None:
    tensors = {name: tensor.clone() for name, tensor in files["llamagen"].items()}
    tensors["quantize.embedding.weight"][7, 2] = value
    codes = _codes(3, 2, 3) % 7
    codes[1, 0, 2] = 7
    images = decoder(tensors, match_vq16).decode(codes)
    assert images.finite.tolist() == [True, False, True]
    assert torch.equal(images.pixels[[0, 2]], ours.decode(codes[[0, 2]]).pixels)
    assert images.pixels[1].max() == 0


def test_bfloat16_files_are_computed_in_float32_unless_told(files) -> None:
    stored = {name: tensor.bfloat16() for name, tensor in files["janus"].items()}
    widened = {name: tensor.float() for name, tensor in stored.items()}
    codes = _codes(2, 2, 3)
    exact = decoder(widened, match_vq16).decode_floats(codes)
    assert torch.equal(decoder(stored, match_vq16).decode_floats(codes), exact)
    rough = decoder(stored, match_vq16, dtype=torch.bfloat16).decode_floats(codes)
    assert rough.dtype == torch.float32
    assert 1e-4 < difference(rough, exact) < 0.1 * float(exact.abs().max())


def test_grey_levels_are_the_families() -> None:
    """Between levels Janus takes the one below, LlamaGen the nearest; both clip."""
    values = torch.tensor([-2.0, -1.0, -0.997, 0.0, 0.004, 0.999, 1.0, 3.0])
    assert truncated(values).to(torch.uint8).tolist() == [0, 0, 0, 127, 128, 254, 255, 255]
    assert rounded_half_up(values).to(torch.uint8).tolist() == [0, 0, 0, 128, 128, 255, 255, 255]
