"""A small convolutional image tokenizer with finite scalar quantisation (FSQ).

Exported as two TorchScript files with the interface of the Cosmos tokenizer, so that the demo and a
real SimpleAR checkpoint share one code path:

* `encoder.jit`: `[B, 3, 1, H, W]` in [-1, 1] to `(indices [B, 1, H/8, W/8] int32, codes)`
* `decoder.jit`: `indices [B, 1, h, w]` to `[B, 3, 1, 8h, 8w]` in [-1, 1]

FSQ: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505).
"""

import math

import torch
from torch import Tensor, nn

DOWNSAMPLE = 8


class Quantizer(nn.Module):
    """Rounds each of `len(levels)` channels to one of its levels; an index is their mixed-radix number."""

    extent: Tensor
    offset: Tensor
    shift: Tensor
    width: Tensor
    basis: Tensor
    levels: Tensor

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        values = torch.tensor(levels, dtype=torch.float32)
        even = (values % 2 == 0).float() * 0.5
        half = (values - 1) * (1 + 1e-3) / 2
        self.codebook_size = math.prod(levels)
        # An even number of levels is rounded half a step to the side (arXiv 2309.15505, appendix A).
        self.register_buffer("extent", half.view(-1, 1, 1))
        self.register_buffer("offset", even.view(-1, 1, 1))
        self.register_buffer("shift", torch.atanh(even / half).view(-1, 1, 1))
        self.register_buffer("width", (values // 2).view(-1, 1, 1))
        basis = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0)
        self.register_buffer("basis", basis.view(-1, 1, 1))
        self.register_buffer("levels", torch.tensor(levels).view(-1, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        """Quantised codes in [-1, 1] of `z` `[B, C, h, w]`, with a straight-through gradient."""
        bounded = torch.tanh(z + self.shift) * self.extent - self.offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self.width

    def to_indices(self, codes: Tensor) -> Tensor:
        """`[B, C, h, w]` codes to `[B, h, w]` integers below `codebook_size`."""
        digits = (codes * self.width + self.width).round().long()
        return (digits * self.basis).sum(1)

    def to_codes(self, indices: Tensor) -> Tensor:
        """`[B, h, w]` integers to `[B, C, h, w]` codes."""
        digits = (indices.long().unsqueeze(1) // self.basis) % self.levels
        return (digits - self.width) / self.width


class Residual(nn.Module):
    """Two 3x3 convolutions with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same shape."""
        changed: Tensor = self.body(x)
        return x + changed


class FsqAutoencoder(nn.Module):
    """Pixels to FSQ codes and back: the encoder patch by patch, the decoder by convolutions."""

    def __init__(self, levels: list[int], width: int = 64) -> None:
        super().__init__()
        hidden = width * 3 // 2
        self.quantizer = Quantizer(levels)
        # A code depends on its own 8x8 pixels only: equal patches get equal codes at any position, so a
        # language model over the codes has to predict nothing but the scene.
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(DOWNSAMPLE),
            nn.Conv2d(3 * DOWNSAMPLE**2, 4 * width, 1),
            nn.SiLU(),
            nn.Conv2d(4 * width, 4 * width, 1),
            nn.SiLU(),
            nn.Conv2d(4 * width, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, len(levels), 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(len(levels), hidden, 3, padding=1),
            Residual(hidden),
            nn.Conv2d(hidden, width * 4, 1),
            nn.PixelShuffle(2),
            Residual(width),
            Residual(width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruction of images `[B, 3, H, W]` in [-1, 1]."""
        decoded: Tensor = self.decoder(self.quantizer(self.encoder(images)))
        return decoded


class EncoderContract(nn.Module):
    """`encoder.jit`: the encoder with the interface of the Cosmos discrete image tokenizer."""

    def __init__(self, model: FsqAutoencoder) -> None:
        super().__init__()
        self.encoder, self.quantizer = model.encoder, model.quantizer

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 3, 1, H, W]` in [-1, 1] to `(indices [B, 1, H/8, W/8], codes [B, C, 1, H/8, W/8])`."""
        codes = self.quantizer(self.encoder(images.squeeze(2)))
        return self.quantizer.to_indices(codes).unsqueeze(1).to(torch.int32), codes.unsqueeze(2)


class DecoderContract(nn.Module):
    """`decoder.jit`: the decoder with the interface of the Cosmos discrete image tokenizer."""

    def __init__(self, model: FsqAutoencoder) -> None:
        super().__init__()
        self.decoder, self.quantizer = model.decoder, model.quantizer

    def forward(self, indices: Tensor) -> Tensor:
        """`[B, 1, h, w]` codes to pixels `[B, 3, 1, 8h, 8w]` in [-1, 1]."""
        pixels: Tensor = self.decoder(self.quantizer.to_codes(indices.squeeze(1))).clamp(-1.0, 1.0)
        return pixels.unsqueeze(2)
