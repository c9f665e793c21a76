"""The convolutional decoder that turns the vectors of visual codes into a picture.

A VQGAN's decoder (Esser et al., arXiv 2012.09841): residual blocks by level, each level twice as wide and
high as the one before it, attention in the middle and at the coarsest level. Attributes have the names that
tensors have in transformers' files of Janus and in the original ones of Emu3.

Operations are those of the original programs, so that pixels can be bit-equal to theirs: `x * sigmoid(x)`
(`F.silu` rounds otherwise), attention as two `bmm`, inputs contiguous in NCHW.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS, EPS = 32, 1e-6
NormMaker = Callable[[int], nn.Module]


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """What the decoders of a family differ in.

    Attributes:
        codes: rows of the codebook.
        latent: channels of the decoder's input.
        widths: channels of each level, coarsest first.
        blocks: residual blocks of a level.
    """

    codes: int
    latent: int
    widths: tuple[int, ...]
    blocks: int

    @property
    def downsample(self) -> int:
        """Pixels along one side that a code becomes."""
        return 1 << (len(self.widths) - 1)


def swish_(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`, written over `x`."""
    return x.mul_(torch.sigmoid(x))


class GroupNorm(nn.Module):
    """Norm over 32 groups of channels, called as norms are that the codes' vectors steer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, _condition: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same shape."""
        return F.group_norm(x, GROUPS, self.weight, self.bias, EPS)


class Residual(nn.Module):
    """Twice norm, swish and a 3x3 convolution, and the input beside it."""

    def __init__(self, width_in: int, width: int, norm: NormMaker) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(width_in), nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2, self.conv2 = norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`[B, width_in, h, w]` to `[B, width, h, w]`."""
        changed: Tensor = self.conv1(swish_(self.norm1(x, condition)))
        changed = self.conv2(swish_(self.norm2(changed, condition)))
        skipped: Tensor = x if self.nin_shortcut is None else self.nin_shortcut(x)
        return skipped + changed


class Attention(nn.Module):
    """One head over all places of a picture."""

    def __init__(self, width: int, norm: NormMaker) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same shape; needs `(h * w)²` numbers a picture."""
        normed = self.norm(x, condition)
        queries, keys, values = (conv(normed).flatten(2) for conv in (self.q, self.k, self.v))
        scores = torch.bmm(queries.transpose(1, 2), keys) * x.shape[1] ** -0.5
        mixed = torch.bmm(values, scores.softmax(2).transpose(1, 2))
        attended: Tensor = self.proj_out(mixed.view_as(x))
        return x + attended


class Upsample(nn.Module):
    """Each pixel four times, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, C, 2h, 2w]`."""
        grown: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return grown


class Middle(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, width: int, norm: NormMaker) -> None:
        super().__init__()
        self.block_1, self.block_2 = (Residual(width, width, norm) for _ in range(2))
        self.attn_1 = Attention(width, norm)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same shape."""
        attended = self.attn_1(self.block_1(x, condition), condition)
        changed: Tensor = self.block_2(attended, condition)
        return changed


class Level(nn.Module):
    """A level's residual blocks, the coarsest level's each with attention; the finest does not upsample."""

    def __init__(self, widths: tuple[int, ...], level: int, blocks: int, norm: NormMaker) -> None:
        super().__init__()
        width, before = widths[level], widths[max(level - 1, 0)]
        self.block = nn.ModuleList(Residual(width if n else before, width, norm) for n in range(blocks))
        self.attn = nn.ModuleList(Attention(width, norm) for _ in range(0 if level else blocks))
        self.upsample = Upsample(width) if level < len(widths) - 1 else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, width, 2h, 2w]`, at the finest level to `[B, width, h, w]`."""
        for number, block in enumerate(self.block):
            x = block(x, condition)
            if self.attn:
                x = self.attn[number](x, condition)
        return x if self.upsample is None else self.upsample(x)


class ConvDecoder(nn.Module):
    """From latents `[B, latent, h, w]` to pixels `[B, 3, H, W]`."""

    def __init__(self, shape: DecoderShape, norm: NormMaker, *, finest_first: bool) -> None:
        """`finest_first`: whether `up.0` is the finest level; computing begins with the coarsest."""
        super().__init__()
        self.conv_in = nn.Conv2d(shape.latent, shape.widths[0], 3, padding=1)
        self.mid = Middle(shape.widths[0], norm)
        levels = [Level(shape.widths, n, shape.blocks, norm) for n in range(len(shape.widths))]
        self.up = nn.ModuleList(reversed(levels) if finest_first else levels)
        self.finest_first = finest_first
        self.norm_out = norm(shape.widths[-1])
        self.conv_out = nn.Conv2d(shape.widths[-1], 3, 3, padding=1)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        """Pixels, about -1 to 1; `condition` goes to each norm."""
        x = self.mid(self.conv_in(latents), condition)
        for level in reversed(self.up) if self.finest_first else self.up:
            x = level(x, condition)
        pixels: Tensor = self.conv_out(swish_(self.norm_out(x, condition)))
        return pixels
