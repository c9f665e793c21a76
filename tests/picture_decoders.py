"""Tiny picture decoders of transformers with random weights, their files, and our decoders of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sar_eval.families.decoder_tensors import MatchedDecoder, Naming
from sar_eval.families.pixel_decoder import PixelDecoder, truncated

Match = Callable[[Mapping[str, tuple[int, ...]], str], MatchedDecoder]
UNUSED = ("encoder.", "quant_conv.", "quantize.codebook_used")


def randomized(model: Any) -> Any:
    """The model with random weights also in norms and their statistics, which begin as 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            with torch.no_grad():
                if name.endswith("running_var"):
                    tensor.copy_(0.5 + noise.abs())
                elif tensor.dim() > 1:
                    tensor.copy_(noise / max(tensor[0].numel(), 1) ** 0.5)
                else:
                    tensor.copy_(noise * 0.3 + ("norm" in name and name.endswith("weight")))
    return model.eval()


def file_of(model: Any, prefix: str) -> dict[str, Tensor]:
    """The tensors of a model of transformers under its names."""
    return {prefix + name: tensor.clone() for name, tensor in model.state_dict().items()}


def renamed(tensors: Mapping[str, Tensor], match: Match, naming: Naming, prefix: str) -> dict[str, Tensor]:
    """The same file in another naming: what the decoder needs, and what it does not, as it was."""
    matched = match(shapes(tensors), "file")
    used = {stored: ours for ours, stored in matched.stored.items()}
    kind_of = matched.load(tensors, "cpu", torch.float32).state_dict()
    return {
        prefix + naming.renamed(ours): tensors[stored].reshape(kind_of[ours].shape)
        for stored, ours in used.items()
    }


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def decoder(
    tensors: Mapping[str, Tensor],
    match: Match,
    to_grey: Callable[[Tensor], Tensor] = truncated,
    **options: Any,
) -> PixelDecoder:
    return PixelDecoder(match(shapes(tensors), "file"), tensors, to_grey, **options)


def difference(actual: Tensor, expected: Tensor) -> float:
    """The greatest between two tensors of one shape."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max())
