"""A matrix product with fixed weights, stored in the layout that the device multiplies fastest."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_PACKED = 1 << 20  # numbers of a float32 weight; for smaller ones the packed product takes longer


class Linear:
    """`x @ weight.T + bias` for one weight `[out, in]`.

    In half precision on the CPU, PyTorch reorders the weight into the processor's own layout in every
    product, which for a few rows costs more than the product. Here that is done once: 22 instead of
    13 GB/s of weights on two cores, the same numbers. In float32 PyTorch multiplies by another library,
    which for a few rows is two to four times as slow as the packed product on a processor without AVX-512
    (`reports/speed/decode.md`).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.bias = bias
        worth = weight.dtype in (torch.bfloat16, torch.float16) or (
            weight.dtype == torch.float32 and weight.numel() >= MIN_PACKED
        )
        self.packed = worth and weight.device.type == "cpu" and can_pack(weight.dtype)
        self.dtype = weight.dtype
        self.weight = _pack(weight) if self.packed else weight

    @torch.no_grad()
    def load(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Replace the values by those of tensors of the same shape, of any dtype, on any device.

        In place, because CUDA graphs hold the addresses; packed weights, which are on the CPU, are packed
        anew.
        """
        if self.packed:
            self.weight = _pack(weight.to("cpu", self.dtype))
        else:
            self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product


def _pack(weight: Tensor) -> Tensor:
    # The operator of torch.compile's CPU backend for frozen weights; 8 is a hint at the batch size.
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
    return packed


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor multiply packed weights correctly; tested once per dtype."""
    weight, x = torch.randn(64, 32).to(dtype), torch.randn(3, 1, 32).to(dtype)
    bias = torch.randn(64).to(dtype)
    try:
        with torch.inference_mode():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, 3)
            product = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False  # built without oneDNN, or a processor without these instructions
    return bool(torch.allclose(product.float(), F.linear(x, weight, bias).float(), rtol=0.05, atol=0.05))
