"""The picture decoder of Emu3-VisionTokenizer: a video's decoder, of which the first frame is the picture.

Source of formulas: `modeling_emu3visionvq.py` of BAAI/Emu3-VisionTokenizer (Wang et al., arXiv 2409.18869).
Codes of one picture become four frames; norms are scaled and shifted by the codes' vectors (MoVQ, arXiv
2209.09002).

Only the first frame is computed: convolutions over time look backwards, and before the first frame they see
zeros, so that of their kernels the last slice alone counts; upsampling in time repeats frames, so the first
stays itself. The other three frames never enter it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.families.conv_decoder import ConvDecoder, DecoderShape, GroupNorm, swish_
from sar_eval.families.decoder_tensors import DecoderKind, MatchedDecoder, Naming, match_decoder
from sar_eval.families.tensor_names import Shape

CODE_WIDTH = 4  # numbers in a row of the codebook
DOUBLINGS = 2  # in time: one step of codes becomes four frames
FRAMES = 3  # that a convolution over time sees: two before, and its own
BATCH_NORM_EPS = 1e-5
ORIGINAL = Naming(level=r"decoder\.up\.", block=r"block\.")
TRANSFORMERS = Naming(
    level=r"decoder\.up_block\.up\.",
    block=r"block\.",
    rules=(
        (r"^decoder\.up\.", "decoder.up_block.up."),
        (r"^decoder\.mid\.", "decoder.middle_block."),
        (r"\.attn\.(\d+)\.norm\.", r".attn_norms.\1."),
        (r"\.attn_1\.norm\.", ".attn_norm."),
        (r"\.(q|k|v)\.(weight|bias)$", r".\1_proj.\2"),
        (r"\.proj_out\.", ".out_proj."),
    ),
    matrices=r".*\.(q|k|v|proj_out)\.weight",
)


class FirstFrameConv(nn.Module):
    """A causal convolution over three frames, on the first frame of all."""

    def __init__(self, width_in: int, width: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width_in, width, (FRAMES, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, width, h, w]`."""
        weight = self.conv.weight[:, :, -1].contiguous()
        return F.conv2d(x, weight, self.conv.bias, padding=weight.shape[-1] // 2)


class BatchNorm(nn.Module):
    """Norm by the means and variances of the training."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.register_buffer("running_mean", torch.empty(width))
        self.register_buffer("running_var", torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same shape."""
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, training=False, eps=BATCH_NORM_EPS)


class TemporalResidual(nn.Module):
    """A residual block of convolutions over time, on the first frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(width), BatchNorm(width)
        self.conv1, self.conv2 = FirstFrameConv(width, width, 3), FirstFrameConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same shape."""
        changed: Tensor = self.conv2(swish_(self.norm2(self.conv1(swish_(self.norm1(x))))))
        return x + changed


class TemporalUpsample(nn.Module):
    """Doubles the frames, then a convolution over time; on the first frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = FirstFrameConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]` to the same shape."""
        return swish_(self.conv(x))


class SpatialNorm(nn.Module):
    """Group norm, then scale and shift that are linear in the vector of the place's code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_layer = GroupNorm(width)
        self.conv_y, self.conv_b = (nn.Conv2d(CODE_WIDTH, width, 1) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape; `condition` is `[B, 4, h, w]`, stretched by repetition."""
        normed = self.norm_layer(x, condition)
        # Convolved before the repetition: the same values, without two more tensors of the picture's size.
        rows, columns = condition.shape[-2:]
        cells: Tensor = normed.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
        scale, shift = (conv(condition)[:, :, :, None, :, None] for conv in (self.conv_y, self.conv_b))
        return cells.mul_(scale).add_(shift).flatten(4).flatten(2, 3)


class Emu3Decoder(ConvDecoder):
    """The decoder with its blocks over time, which latents and codes' vectors both pass."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__(shape, SpatialNorm, finest_first=True)
        stack = [TemporalResidual(shape.latent) for _ in range(shape.blocks - 1)]
        self.time_res_stack = nn.ModuleList(stack)
        self.time_conv = nn.ModuleList(TemporalUpsample(shape.latent) for _ in range(DOUBLINGS))

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        """Pixels of the first frame, about -1 to 1."""
        both = torch.cat([latents, condition])
        for layer in (*self.time_res_stack, *self.time_conv):
            both = layer(both)
        latents, condition = both.chunk(2)
        return super().forward(latents, condition)


class Emu3Vision(nn.Module):
    """From codes to the pixels of the first frame."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        # Latents and codes' vectors pass the same blocks over time: they have as many channels.
        shape = replace(shape, latent=CODE_WIDTH)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(shape.codes, CODE_WIDTH)})
        self.post_quant_conv = FirstFrameConv(CODE_WIDTH, shape.latent, 1)
        self.decoder = Emu3Decoder(shape)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int64 `[B, h, w]` to pixels `[B, 3, H, W]`."""
        vectors = self.quantize["embedding"](codes).permute(0, 3, 1, 2).contiguous()
        pixels: Tensor = self.decoder(self.post_quant_conv(vectors), vectors)
        return pixels


KIND = DecoderKind(
    "the decoder of Emu3-VisionTokenizer",
    (ORIGINAL, TRANSFORMERS),
    "post_quant_conv.conv",
    finest_first=True,
    build=Emu3Vision,
)


def match_emu3_vision(shapes: Mapping[str, Shape], where: str) -> MatchedDecoder:
    """Find the decoder in a file of Emu3 by its tensors' names and shapes; see `match_decoder`.

    `PixelDecoder` loads it, with `truncated`.

    Raises:
        BadInput: there is none, or a tensor of it is missing, foreign or misshapen.
    """
    return match_decoder(shapes, KIND, where)
