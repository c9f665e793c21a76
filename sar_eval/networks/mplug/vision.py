"""CLIP's vision tower as in mPLUG: all tokens, no projection.

Architecture: `VisualTransformer` with `skip_last_layer` in
modelscope/models/multi_modal/mplug/clip/clip.py (modelscope 1.40.2), after OpenAI's CLIP. Layers are
pre-norm, the activation is QuickGELU, x * sigmoid(1.702 x). Parameters have the original's names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sar_eval.networks.mplug.shape import HEAD_WIDTH, MplugShape


class VisionTransformer(nn.Module):
    """Encodes images."""

    def __init__(self, shape: MplugShape) -> None:
        super().__init__()
        width = shape.vision_width
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(shape.image_tokens, width))
        self.conv1 = nn.Conv2d(3, width, shape.patch, shape.patch, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Transformer(width, shape.vision_layers)
        self.ln_post = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens `[P, N, width]` of normalised images `[P, 3, S, S]`, class token first."""
        # A matrix product in place of the convolution, for which cuDNN would round float32 to TF32.
        patch, kernel = self.conv1.kernel_size[0], self.conv1.weight.flatten(1)
        patches = F.linear(F.unfold(pixels, patch, stride=patch).transpose(1, 2), kernel)
        class_token = self.class_embedding.expand(len(pixels), 1, -1)
        x = torch.cat([class_token, patches], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        tokens: Tensor = self.ln_post(x)
        return tokens


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width) for _ in range(layers))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = _Attention(width)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = _FeedForward(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.c_fc(x)
        out: Tensor = self.c_proj(inner * torch.sigmoid(1.702 * inner))
        return out
