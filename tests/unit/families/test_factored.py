"""The factored tokenizer: shape codes know no colour, colour codes no shape, and both recombine."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.factored import (
    FactoredAutoencoder,
    FactoredDecoderContract,
    FactoredEncoderContract,
    Layers,
    pair_columns,
    part_columns,
)
from sar_eval.storage.shards import IMAGE_SCHEMA, write_shards
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import Scene, Shape
from sar_eval.suites.shapes.vocabulary import BACKGROUND, PALETTE, SHAPES
from sar_eval.train.scenes import make_scenes
from sar_eval.train.tokenizer import TokenizerOptions, build_autoencoder, export, train_tokenizer
from tests.token_folders import tokenize

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")
SMALL = TokenizerOptions(
    levels=(4, 4, 4), width=16, steps=2, batch_size=4, kind="factored", color_levels=(4, 4)
)


def _picture(*shapes: tuple[str, str, int, int], size: int = 20) -> Tensor:
    """A scene of (name, colour, x, y), as `[1, 3, 64, 64]` in [-1, 1]."""
    drawn = tuple(Shape(name, color, x, y, size, PALETTE[color]) for name, color, x, y in shapes)
    pixels = render(Scene(drawn, BACKGROUND, "", {}))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def model() -> FactoredAutoencoder:
    torch.manual_seed(0)
    return FactoredAutoencoder([8, 8, 8, 4], [8, 8, 8], 16).eval()


def test_columns_are_paired_and_parted() -> None:
    x = torch.arange(24.0).view(1, 2, 3, 4)
    assert pair_columns(x)[0, :, 0, 1].tolist() == [2, 14, 3, 15]
    assert torch.equal(part_columns(pair_columns(x)), x)


@pytest.mark.parametrize("name", SHAPES)
def test_coverage_is_the_same_in_every_color(name: str) -> None:
    pictures = torch.cat([_picture((name, color, 12, 20), size=24) for color in PALETTE])
    coverage, _ = Layers()(pictures)
    assert torch.equal(coverage, coverage[:1].expand_as(coverage))
    drawn = ((pictures[:1] - pictures[:1, :, :1, :1]).abs().amax(1) > 0.02)[0]
    assert torch.equal(coverage[0, 0] > 0, drawn)


def test_a_picture_of_background_has_no_coverage() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (1, 3, 64, 64)) / 127.5
    coverage, colors = Layers()(torch.from_numpy(noise).float())
    assert not coverage.any()
    assert colors.abs().max() < 3 / 127.5


def test_shapes_that_meet_in_a_region_keep_their_colors() -> None:
    picture = _picture(("star", "red", 16, 8), ("circle", "blue", 40, 8))
    colors = (Layers()(picture)[1] + 1) * 127.5
    ground, left, right = colors[0, :, 2, 2].split(3)  # pixels 32 to 48: the star ends at 36
    for found, expected in ((ground, BACKGROUND), (left, PALETTE["red"]), (right, PALETTE["blue"])):
        torch.testing.assert_close(found, torch.tensor(expected).float(), rtol=0, atol=3)
    only_left = colors[0, :, 2, 1].split(3)
    torch.testing.assert_close(only_left[1], only_left[2], rtol=0, atol=1)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_in_another_color_differs_in_color_codes_only(
    name: str, model: FactoredAutoencoder
) -> None:
    red, blue = (_picture((name, color, 8, 16)) for color in ("red", "blue"))
    (shape, in_red), (same_shape, in_blue) = model.encoder(red), model.encoder(blue)
    assert torch.equal(shape, same_shape)
    assert not torch.equal(in_red, in_blue)


def test_colors_in_another_shape_differ_in_shape_codes_only(model: FactoredAutoencoder) -> None:
    square, circle = (_picture((name, "pink", 8, 16)) for name in ("square", "circle"))
    (shape, color), (other_shape, same_color) = model.encoder(square), model.encoder(circle)
    assert torch.equal(color, same_color)
    assert not torch.equal(shape, other_shape)


def test_every_weight_gets_a_gradient(model: FactoredAutoencoder) -> None:
    picture = _picture(("star", "red", 16, 8), ("circle", "blue", 40, 32))
    (model(picture) - picture).abs().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    model.zero_grad()
    assert without == []


@torch.inference_mode()
def test_the_contract_of_encoder_and_decoder(model: FactoredAutoencoder) -> None:
    picture = _picture(("heart", "green", 16, 8))
    indices, codes = FactoredEncoderContract(model)(picture.unsqueeze(2))
    assert indices.shape == (1, 1, 8, 8)
    assert indices.dtype == torch.int32
    assert codes.shape == (1, 7, 1, 8, 4)
    shapes, colors = indices[..., 0::2], indices[..., 1::2]
    assert 0 <= shapes.min() <= shapes.max() < 2048 <= colors.min() <= colors.max() < 2560
    pixels = FactoredDecoderContract(model)(indices)
    assert pixels.shape == (1, 3, 1, 64, 64)
    torch.testing.assert_close(pixels.squeeze(2), model(picture).clamp(-1, 1))


@torch.inference_mode()
def test_codes_of_the_wrong_kind_give_a_picture_too(model: FactoredAutoencoder) -> None:
    indices = torch.tensor([0, 2047, 2048, 2559]).repeat(1, 1, 4, 2)
    for wrong in (indices, indices.flip(3)):
        assert FactoredDecoderContract(model)(wrong).isfinite().all()


def test_exported_files_give_what_the_model_gives(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = build_autoencoder(SMALL).eval()
    export(model, tmp_path, SMALL)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "codebook_size": 80,
        "downsample": 8,
        "levels": [4, 4, 4],
        "columns": 16,
        "kind": "factored",
        "color_levels": [4, 4],
    }
    visual, picture = VisualTokenizer(tmp_path), _picture(("ring", "white", 30, 40))
    pixels = ((picture + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    codes = visual.encode(pixels)
    assert codes.shape == (1, 64)
    decoded = visual.decode(codes.view(-1, 8, 8)).pixels.float() / 127.5 - 1
    with torch.inference_mode():
        expected = model(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).clamp(-1, 1)
    torch.testing.assert_close(decoded.permute(0, 3, 1, 2), expected, rtol=0, atol=1 / 127.5)


def test_training_lowers_the_loss_and_exports(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", 1, style="tidy", seed=0)  # every batch is the same
    losses: list[float] = []
    many = replace(SMALL, steps=20, batch_size=1, learning_rate=0.05)
    train_tokenizer([tmp_path / "scenes"], tmp_path / "out", many, lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.92 * losses[0]
    assert VisualTokenizer(tmp_path / "out").codebook_size == 80
    with pytest.raises(BadInput, match="made with other options"):
        train_tokenizer([tmp_path / "scenes"], tmp_path / "out", SMALL)


def test_a_local_state_reads_as_before_there_were_kinds(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", 2, style="tidy", seed=0)
    local = TokenizerOptions(levels=(4, 4), width=16, steps=1, batch_size=2)
    train_tokenizer([tmp_path / "scenes"], tmp_path / "out", local)
    options = json.loads(torch.load(tmp_path / "out" / "state.pt", weights_only=True)["options"])
    assert list(options) == [
        "levels",
        "width",
        "steps",
        "batch_size",
        "learning_rate",
        "seed",
        "save_every",
    ]
    assert "kind" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_images_must_have_whole_regions(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (24, 16)).save(png, "PNG")
    row = {"image": {"bytes": png.getvalue(), "path": "a.png"}, "caption": "a ring"}
    write_shards([row], tmp_path / "images", IMAGE_SCHEMA)
    with pytest.raises(BadInput, match="a multiple of 8 in height and 16 in width"):
        train_tokenizer([tmp_path / "images"], tmp_path / "out", SMALL)
    export(build_autoencoder(SMALL).eval(), tmp_path, SMALL)
    with pytest.raises(BadInput, match=r"does_not_fit \(24x16 pixels, no multiples of 16x8; say --size"):
        tokenize([tmp_path / "images"], tmp_path, tmp_path / "tokens")
    with pytest.raises(BadInput, match=r"--size 24: .* width is a multiple of 16 pixels: 16 or 32"):
        tokenize([tmp_path / "images"], tmp_path, tmp_path / "tokens", size=(16, 24))


def test_the_script_refuses_a_folder_with_a_tokenizer_of_another_kind(tmp_path: Path) -> None:
    for kind, options in (("factored", TokenizerOptions(levels=(4, 4), width=16)), ("local", SMALL)):
        folder = tmp_path / kind / "tokenizer"
        folder.mkdir(parents=True)
        export(build_autoencoder(options).eval(), folder, options)
        script = Path(__file__).parents[3] / "scripts" / "demo-checkpoints.sh"
        command = ["sh", str(script), str(folder.parent), kind]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
        )
        assert (done.returncode, f"not a {kind} one" in done.stderr) == (2, True)


def test_kinds_and_levels_that_do_not_go_together() -> None:
    with pytest.raises(BadInput, match="--kind is 'wavelets': local or factored"):
        TokenizerOptions(kind="wavelets")
    for kind, color_levels in (("local", (8, 8)), ("factored", ())):
        with pytest.raises(BadInput, match="--color-levels goes with --kind factored"):
            TokenizerOptions(kind=kind, color_levels=color_levels)
