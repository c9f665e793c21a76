"""Products with packed weights: what 16 bits hold is stored so, and multiplies as exactly as float32."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from sar_eval.decoding import linear as linear_module
from sar_eval.decoding.linear import (
    HalfStored,
    Linear,
    OneDnn,
    Plain,
    can_pack,
    can_store_half,
    packed_product,
    scaled_to_half,
)
from sar_eval.engines.native import NativeEngine
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw

HALVES = [torch.bfloat16, torch.float16]
needs_half = pytest.mark.skipif(
    not can_store_half(), reason="this torch has no product with float16 weights"
)


def _numbers(*shape: int, scale: float = 0.02) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * scale


@pytest.mark.parametrize("dtype", HALVES)
def test_packed_weights_give_the_same_product(dtype: torch.dtype) -> None:
    weight, bias = _numbers(96, 64, scale=1).to(dtype), _numbers(96, scale=1).to(dtype)
    for rows in (1, 8, 50):
        x = _numbers(rows, 2, 64, scale=1).to(dtype)
        with torch.inference_mode():
            product, plain = Linear(weight, bias)(x), F.linear(x, weight, bias)
        torch.testing.assert_close(product, plain, rtol=0.02, atol=0.02)
    assert not Linear(weight.float()).packed


@pytest.mark.parametrize("published", [torch.float32, *HALVES], ids=str)
def test_large_float32_weights_are_packed_and_give_the_same_product(published: torch.dtype) -> None:
    """Of numbers of half precision as exactly as of others, by whichever product; and after a load."""
    weight, other = (_numbers(2048, 513, scale=s).to(published).float() for s in (1, -0.7))
    bias, other_bias = _numbers(2048, scale=1), _numbers(2048, scale=2)
    linear = Linear(weight, bias.clone())
    assert linear.packed
    with torch.inference_mode():
        for rows in (1, 2, 8, 50):
            x = _numbers(rows, 2, 513, scale=1)
            torch.testing.assert_close(linear(x), F.linear(x, weight, bias), rtol=0, atol=3e-4)
        linear.load(other, other_bias)
        torch.testing.assert_close(linear(x), F.linear(x, other, other_bias), rtol=0, atol=3e-4)


@needs_half
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 0.02, 1.0, 1e4, 1e12])
@pytest.mark.parametrize("published", HALVES, ids=str)
def test_half_stored_products_are_as_exact_as_float32(published: torch.dtype, scale: float) -> None:
    """Against the product in double precision."""
    weight = (_numbers(64, 256, scale=1)).to(published).float() * 2.0 ** round(math.log2(scale))
    x, bias = _numbers(4, 256, scale=1), torch.zeros(64)
    product = packed_product(weight, bias)
    assert isinstance(product, HalfStored)
    exact = F.linear(x.double(), weight.double())
    bound = 256 * 2.0**-24 * F.linear(x.abs().double(), weight.abs().double())
    assert (product(x).double() - exact).abs().le(bound).all()


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ([0.0, 0.0], True),
        ([1.5, -3.0], True),
        ([1.0, 2.0**-30 * 1.5], True),
        ([1.0, 2.0**-45], False),  # float16 would lose it
        ([1.0, 1.0 + 2.0**-12], False),  # a number of float32
        ([2.0**127, 1.0], False),
        ([2.0**-126, 2.0**-130], False),
        ([2.0**-40, 2.0**-60], True),
        ([1.0, float("inf")], False),
        ([1.0, float("nan")], False),
    ],
    ids=str,
)
def test_weights_are_stored_in_16_bits_only_where_these_hold_them(numbers: list[float], kept: bool) -> None:
    weight = torch.tensor([numbers])
    found = scaled_to_half(weight)
    assert (found is not None) is kept
    if found is not None:
        scaled, exponent = found
        assert torch.equal(scaled.half().double() * 2.0**-exponent, weight.double())


@needs_half
def test_a_load_stores_each_weight_as_it_needs() -> None:
    published, trained = _numbers(2048, 512).bfloat16().float(), _numbers(2048, 512)
    linear = Linear(published)
    kinds = [type(linear.product)]
    for weight in (trained, published):
        linear.load(weight)
        kinds.append(type(linear.product))
    other = OneDnn if can_pack(torch.float32) else Plain
    assert kinds == [HalfStored, other, HalfStored]


def test_without_these_operators_the_product_is_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("can_store_half", "can_pack"):
        monkeypatch.setattr(linear_module, name, lambda *_: False)
    weight, other = _numbers(2048, 512).bfloat16().float(), _numbers(2048, 512)
    linear, x = Linear(weight), _numbers(3, 512)
    given = weight.clone()
    assert torch.equal(linear(x), F.linear(x, weight))
    linear.load(other)
    assert torch.equal(linear(x), F.linear(x, other))
    assert torch.equal(weight, given)  # the tensor given may be another's


def test_an_engine_starts_without_torch_s_compiler() -> None:
    """Importing it takes longer than importing torch, and every worker starts anew."""
    code = "import sys, sar_eval.decoding.load; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_onednn_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac its operators do not exist."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(linear_module, "can_pack", lambda _: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    for dtype in HALVES:
        weight, x = _numbers(32, 16).to(dtype), _numbers(2, 16).to(dtype)
        torch.testing.assert_close(Linear(weight)(x), F.linear(x, weight), rtol=0.02, atol=0.02)


PROTOCOL = DrawProtocol("test", 32, guidance=3.0, negative_prompt="a cross")


def _draws() -> list[Draw]:
    texts = ("a photo of a red star", "a ring", "a sketch of two blue circles and a green heart")
    return [make_draw(Prompt(f"p{i}", text), i, run_seed=7) for i, text in enumerate(texts)]


@needs_half
@pytest.mark.parametrize("changes", [{}, {"full_vocab": True}], ids=["visual_only", "full_vocab"])
def test_a_published_checkpoint_is_drawn_with_the_same_tokens(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, bool]
) -> None:
    """Every weight in 16 bits against none, at float32: step by step, with speculation, after a load."""
    protocol, folder = dataclasses.replace(PROTOCOL, **changes), tmp_path / "published"
    folder.mkdir()
    (tmp_path / "tokenizer").symlink_to(tiny_checkpoint.parent.resolve() / "tokenizer")
    for path in tiny_checkpoint.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).symlink_to(path.resolve())
    trained = load_file(tiny_checkpoint / "model.safetensors")
    published = {name: tensor.bfloat16() for name, tensor in trained.items()}
    save_file(published, folder / "model.safetensors")

    def tokens(checkpoint: Path, **options: bool) -> list[tuple[int, ...]]:
        with NativeEngine(str(checkpoint), protocol, dtype="float32", **options) as engine:
            if checkpoint == tiny_checkpoint:
                engine.load_weights(iter(published.items()))
            kinds.append({type(layer.down.product) for layer in engine.decoder.layers})
            return [g.tokens for g in engine.generate(_draws())]

    kinds: list[set[type]] = []
    expected = tokens(folder)
    monkeypatch.setattr(linear_module, "MIN_PACKED", 1)
    assert tokens(folder) == expected
    assert tokens(folder, speculate=True) == expected
    assert tokens(tiny_checkpoint) == expected
    assert kinds == [{Plain}, {HalfStored}, {HalfStored}, {HalfStored}]
