"""Emu3's picture decoder: against transformers' four frames, both namings, refused files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.families.emu3_vision import ORIGINAL, FirstFrameConv, match_emu3_vision
from sar_eval.families.pixel_decoder import PixelDecoder
from tests.picture_decoders import decoder, difference, file_of, randomized, renamed, shapes

transformers = pytest.importorskip("transformers", reason="needs the extra hf")
PREFIXES = {"transformers": "model.vqmodel.", "original": ""}
STEPS = {"transformers": 3, "original": 11}  # which tensors are tried
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    options = {"codebook_size": 24, "base_channels": 32, "hidden_size": 64}
    config = transformers.Emu3VQVAEConfig(
        channel_multiplier=[1, 1, 2], num_res_blocks=2, attn_resolutions=[2], **options
    )
    return randomized(transformers.Emu3VQVAE(config))


@pytest.fixture(scope="module")
def files(model):
    tensors = file_of(model, PREFIXES["transformers"])
    original = renamed(tensors, match_emu3_vision, ORIGINAL, "")
    unused = {"encoder.conv_in.bias": torch.zeros(8), "quant_conv.conv.bias": torch.zeros(4)}
    counts = {"decoder.time_res_stack.0.norm1.num_batches_tracked": torch.tensor(5)}
    text = {"model.text_model.norm.weight": torch.ones(4)}
    return {"transformers": tensors | text, "original": original | unused | counts}


@pytest.fixture(scope="module")
def ours(files) -> PixelDecoder:
    return decoder(files["original"], match_emu3_vision)


def _codes(*size: int) -> Tensor:
    return torch.randint(24, size, generator=torch.Generator().manual_seed(1), dtype=torch.int32)


@pytest.mark.parametrize("grid", [(2, 3), (4, 1)])
def test_pixels_are_those_of_transformers(model, ours, grid) -> None:
    codes = _codes(2, *grid)
    with torch.no_grad():
        expected = torch.cat([model.decode(row[None].long()) for row in codes])
    assert difference(ours.decode_floats(codes), expected) < 2e-5
    assert (ours.codebook_size, ours.downsample) == (24, 4)


def test_with_exact_arithmetic_the_first_of_four_frames_is_the_picture(model, files) -> None:
    network = match_emu3_vision(shapes(files["original"]), "file")
    double = network.load(files["original"], "cpu", torch.float64)
    codes = _codes(2, 2, 3).long()
    with torch.no_grad():
        frames = model.double().decode(codes[:, None])
        model.float()
        assert frames.shape == (2, 4, 3, 8, 12)
        assert difference(double(codes), frames[:, 0]) < 1e-11
        assert difference(frames[:, 0], frames[:, 1]) > 1e-2


def test_a_causal_convolution_sees_zeros_before_the_first_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = FirstFrameConv(4, 4, 3).double().requires_grad_(False)
    frames = torch.randn(2, 4, 4, 5, 3, generator=generator, dtype=torch.float64)
    whole = F.conv3d(F.pad(frames, (1, 1, 1, 1, 2, 0)), layer.conv.weight, layer.conv.bias)
    assert difference(layer(frames[:, :, 0]), whole[:, :, 0]) < 1e-12


def test_transformers_names_give_the_same_pixels(files, ours) -> None:
    """Its attention has matrices where the original has 1x1 convolutions."""
    codes = _codes(2, 2, 3)
    other = decoder(files["transformers"], match_emu3_vision)
    assert torch.equal(other.decode_floats(codes), ours.decode_floats(codes))
    assert files["original"]["decoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    assert files["transformers"]["model.vqmodel.decoder.middle_block.attn_1.q_proj.weight"].dim() == 2


def test_published_shapes_are_taken() -> None:
    with torch.device("meta"):
        model = transformers.Emu3VQVAE(transformers.Emu3VQVAEConfig())
    shape = match_emu3_vision(shapes(model.state_dict()), "hub").shape
    assert (shape.codes, shape.latent, shape.widths) == (32768, 4, (1024, 512, 512, 256))
    assert (shape.blocks, shape.downsample) == (3, 8)


@pytest.mark.parametrize("naming", PREFIXES)
def test_missing_tensors_are_named(files, naming) -> None:
    whole = shapes(files[naming])
    for name in list(match_emu3_vision(whole, "file").stored.values())[:: STEPS[naming]]:
        with pytest.raises(BadInput, match=r"^file: the weights have no tensor '" + name + "'$"):
            match_emu3_vision({n: s for n, s in whole.items() if n != name}, "file")


@pytest.mark.parametrize("naming", PREFIXES)
def test_misshapen_tensors_are_named(files, naming) -> None:
    whole = shapes(files[naming])
    stored = match_emu3_vision(whole, "file").stored
    # Any number of rows is a codebook.
    for name in [stored[ours] for ours in stored if ours != "quantize.embedding.weight"][:: STEPS[naming]]:
        wrong = (whole[name][0] + 32, *whole[name][1:])
        with pytest.raises(BadInput, match=rf"file: tensor '{name}' is \({wrong[0]},"):
            match_emu3_vision(whole | {name: wrong}, "file")


def test_a_convolution_in_place_of_a_matrix_is_misshapen(files) -> None:
    name = "model.vqmodel.decoder.middle_block.attn_1.q_proj.weight"
    with pytest.raises(BadInput, match=rf"'{name}' is \(64, 64, 1, 1\), .* to be \(64, 64\)"):
        match_emu3_vision(shapes(files["transformers"]) | {name: (64, 64, 1, 1)}, "file")


@pytest.mark.parametrize("naming", PREFIXES)
@pytest.mark.parametrize("foreign", ["decoder.time_conv.2.conv.conv.bias", "decoder.norm_out.weight"])
def test_a_foreign_tensor_is_named(files, naming, foreign) -> None:
    name = PREFIXES[naming] + foreign
    with pytest.raises(BadInput, match=rf"no part of the decoder of Emu3-VisionTokenizer \({name}\)"):
        match_emu3_vision(shapes(files[naming]) | {name: (1,)}, "file")


def test_a_missing_block_over_time_is_named(files) -> None:
    lost = {n: s for n, s in shapes(files["original"]).items() if "time_res_stack.1" not in n}
    with pytest.raises(
        BadInput, match=r"no tensor 'decoder\.time_res_stack\.1\.norm1\.weight' \(and 11 more"
    ):
        match_emu3_vision(lost, "file")


def test_vq16_and_emu3_are_not_taken_for_each_other(files) -> None:
    from sar_eval.families.vq16 import match_vq16

    with pytest.raises(BadInput, match=r"no tensor 'post_quant_conv\.weight'"):
        match_vq16(shapes(files["original"]), "file")
    with pytest.raises(BadInput, match="no tensors of a VQ-16 decoder"):
        match_vq16(shapes(files["transformers"]), "file")


def test_a_picture_is_the_same_in_every_batch(ours) -> None:
    codes = _codes(4, 2, 3)
    together = ours.decode_floats(codes)
    for row in range(4):
        assert torch.equal(ours.decode_floats(codes[row : row + 1])[0], together[row])


def test_a_picture_that_is_no_numbers_is_told_and_spoils_no_other(files, ours) -> None:
    tensors = {name: tensor.clone() for name, tensor in files["original"].items()}
    tensors["quantize.embedding.weight"][7, 2] = float("nan")
    codes = _codes(3, 2, 3) % 7
    codes[1, 0, 2] = 7
    images = decoder(tensors, match_emu3_vision).decode(codes)
    assert images.finite.tolist() == [True, False, True]
    assert torch.equal(images.pixels[[0, 2]], ours.decode(codes[[0, 2]]).pixels)


def test_bfloat16_files_are_computed_in_float32_unless_told(files) -> None:
    stored = {n: t.bfloat16() if t.is_floating_point() else t for n, t in files["original"].items()}
    widened = {n: t.float() if t.is_floating_point() else t for n, t in stored.items()}
    codes = _codes(2, 2, 3)
    exact = decoder(widened, match_emu3_vision).decode_floats(codes)
    assert torch.equal(decoder(stored, match_emu3_vision).decode_floats(codes), exact)
    rough = decoder(stored, match_emu3_vision, dtype=torch.bfloat16).decode_floats(codes)
    assert 1e-4 < difference(rough, exact) < 0.2 * float(exact.abs().max())
