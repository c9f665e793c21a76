"""A matrix product with fixed weights, stored in the layout that the device multiplies fastest."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_PACKED = 1 << 20  # numbers of a float32 weight; for smaller ones the packed product takes longer
HALF_EXPONENT = 15  # scaled weights are below 2 to this power; float16 ends just below the next
MAX_EXPONENT = 64  # of the factor: weights that ask for more are of no network, and float32 may overflow
Product = Callable[[Tensor], Tensor]


class Linear:
    """`x @ weight.T + bias` for one weight `[out, in]`.

    On the CPU a weight that is worth it is packed once, for the first of these that can take it as it is:

    - `HalfStored`: float32 products with weights stored in 16 bits, where these lose nothing, as those of
      checkpoints that were published in bfloat16. Half of the memory is read. bfloat16 is computed so, too,
      on processors that have no instructions for it.
    - `OneDnn`: PyTorch reorders a weight in half precision into the processor's own layout in every
      product, and multiplies float32 by another library, which for a few rows takes two to four times as
      long on a processor without AVX-512; here that is done once.

    Figures are in `reports/speed/decode.md`.

    Attributes:
        packed: whether the numbers are held in a layout of their own, and not in the tensors given.
        product: what multiplies.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.dtype, self.packed = weight.dtype, is_worth_packing(weight)
        self.product: Product = packed_product(weight, bias) if self.packed else Plain(weight, bias)

    @torch.no_grad()
    def load(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Replace the values by those of tensors of the same shape, of any dtype, on any device.

        In place, because CUDA graphs hold the addresses; packed weights, which are on the CPU, are packed
        anew, as other values may be stored otherwise.
        """
        if isinstance(self.product, Plain) and not self.packed:
            self.product.load(weight, bias)
        else:
            bias = None if bias is None else bias.to("cpu", self.dtype)
            self.product = packed_product(weight.to("cpu", self.dtype), bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return self.product(x)


class Plain:
    """Products of PyTorch with the tensors given."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def load(self, weight: Tensor, bias: Tensor | None) -> None:
        """Copy other values into the same memory."""
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return F.linear(x, self.weight, self.bias)


class HalfStored:
    """Products in float32 with weights in float16 and one power of two for all of them.

    The operator is that of PyTorch's dynamic quantisation to float16 (FBGEMM), which widens weights in
    registers and multiplies and adds in float32.
    """

    def __init__(self, scaled: Tensor, exponent: int, bias: Tensor | None, dtype: torch.dtype) -> None:
        """Pack what `scaled_to_half` returns, for a network that computes in `dtype`."""
        bias = None if bias is None else bias.float()
        self.scale, self.dtype = 2.0**-exponent, dtype
        self.packed = torch.ops.quantized.linear_prepack_fp16(scaled, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, in the network's dtype."""
        # A power of two changes no digit of a product, and x is mostly smaller than what comes out.
        product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x.float() * self.scale, self.packed)
        return product.to(self.dtype)


class OneDnn:
    """Products of oneDNN with a weight in its own layout: the operators of torch.compile's CPU backend."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        # 8 is a hint at the batch size.
        self.packed, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight, 8), bias

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


def keep_out_of_graphs() -> None:
    """Have torch.compile break its graphs at `HalfStored`, whose packed object it cannot trace.

    It is no decorator there, because that imports torch's compiler, which takes longer than torch itself.
    """
    HalfStored.__call__ = torch.compiler.disable(HalfStored.__call__)  # type: ignore[method-assign]


def is_worth_packing(weight: Tensor) -> bool:
    """Whether it is on the CPU, in half precision or large."""
    if weight.device.type != "cpu":
        return False
    half = weight.dtype in (torch.bfloat16, torch.float16)
    return half or (weight.dtype == torch.float32 and weight.numel() >= MIN_PACKED)


def packed_product(weight: Tensor, bias: Tensor | None) -> Product:
    """The fastest product with this weight on the CPU that loses nothing."""
    dtype = weight.dtype
    if not multiplies_half(dtype) and can_store_half() and (found := scaled_to_half(weight)) is not None:
        return HalfStored(*found, bias, dtype)
    return OneDnn(weight, bias) if can_pack(dtype) else Plain(weight.clone(), bias)


def scaled_to_half(weight: Tensor) -> tuple[Tensor, int] | None:
    """The weight times a power of two, float32, and the exponent, if float16 holds that exactly; else None.

    So it does with the eight significant bits of bfloat16, unless one number is smaller than the greatest
    by more than a factor of 2 to the 31st: among normally distributed ones, about one in 500 million is.
    """
    greatest = float(weight.abs().max())
    exponent = HALF_EXPONENT - math.frexp(greatest)[1]
    if not math.isfinite(greatest) or abs(exponent) > MAX_EXPONENT:
        return None
    scaled = weight.float() * 2.0**exponent
    return (scaled, exponent) if torch.equal(scaled.half().float(), scaled) else None


def multiplies_half(dtype: torch.dtype) -> bool:
    """Whether oneDNN, which computes PyTorch's products on a CPU, has kernels of this processor for it.

    Else numbers are converted, and a product takes longer than in float32.
    """
    if not torch.backends.mkldnn.is_available():
        return False  # there are no operators to ask, as on a Mac
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


@cache
def can_store_half() -> bool:
    """Whether this torch multiplies float32 with weights in float16 correctly."""
    weight, bias, x = torch.randn(64, 32).half().float(), torch.randn(64), torch.randn(2, 3, 32)
    try:
        with torch.inference_mode():
            product = HalfStored(weight, 0, bias, torch.float32)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False  # built without FBGEMM, as for other processors than x86
    return bool(torch.allclose(product, F.linear(x, weight, bias), rtol=1e-4, atol=1e-4))


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor multiply packed weights correctly; tested once per dtype."""
    weight, x = torch.randn(64, 32).to(dtype), torch.randn(3, 1, 32).to(dtype)
    bias = torch.randn(64).to(dtype)
    try:
        with torch.inference_mode():
            product = OneDnn(weight, bias)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False  # built without oneDNN, or a processor without these instructions
    return bool(torch.allclose(product.float(), F.linear(x, weight, bias).float(), rtol=0.05, atol=0.05))
