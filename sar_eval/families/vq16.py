"""The picture decoder of Janus and LlamaGen: VQ-16, 16 pixels a code along one side.

Source of formulas: LlamaGen's `tokenizer_image/vq_model.py` (Sun et al., arXiv 2406.06525), which is Janus'
tokenizer, too. A code's vector is the codebook's row divided by its length; after it come `post_quant_conv`
and the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.families.conv_decoder import ConvDecoder, DecoderShape, GroupNorm
from sar_eval.families.decoder_tensors import DecoderKind, MatchedDecoder, Naming, match_decoder
from sar_eval.families.janus_tensors import CODE_WIDTH
from sar_eval.families.tensor_names import Shape

# LlamaGen's own names, which Janus has behind `gen_vision_model.`.
ORIGINAL = Naming(
    level=r"decoder\.conv_blocks\.",
    block=r"res\.",
    rules=(
        (r"^decoder\.up\.(\d+)\.block\.", r"decoder.conv_blocks.\1.res."),
        (r"^decoder\.up\.", "decoder.conv_blocks."),
        (r"^decoder\.mid\.block_1\.", "decoder.mid.0."),
        (r"^decoder\.mid\.attn_1\.", "decoder.mid.1."),
        (r"^decoder\.mid\.block_2\.", "decoder.mid.2."),
    ),
)
# transformers' names, behind `model.vqmodel.`; ours are the same.
TRANSFORMERS = Naming(level=r"decoder\.up\.", block=r"block\.")


class Vq16(nn.Module):
    """From codes to pixels."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(shape.codes, CODE_WIDTH)})
        self.post_quant_conv = nn.Conv2d(CODE_WIDTH, shape.latent, 1)
        self.decoder = ConvDecoder(shape, GroupNorm, finest_first=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int64 `[B, h, w]` to pixels `[B, 3, H, W]`."""
        vectors = F.normalize(self.quantize["embedding"](codes), dim=-1).permute(0, 3, 1, 2).contiguous()
        pixels: Tensor = self.decoder(self.post_quant_conv(vectors), vectors)
        return pixels


KIND = DecoderKind(
    "a VQ-16 decoder", (ORIGINAL, TRANSFORMERS), "post_quant_conv", finest_first=False, build=Vq16
)


def match_vq16(shapes: Mapping[str, Shape], where: str) -> MatchedDecoder:
    """Find the decoder in Janus' or LlamaGen's file by its tensors' names and shapes; see `match_decoder`.

    `PixelDecoder` loads it, for Janus with `truncated`, for LlamaGen with `rounded_half_up`.

    Raises:
        BadInput: there is none, or a tensor of it is missing, foreign or misshapen.
    """
    return match_decoder(shapes, KIND, where)
