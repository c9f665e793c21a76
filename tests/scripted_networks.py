"""Small networks that use what image tokenizers use, to be scripted or traced; as Cosmos' code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Single-head attention over pixels, attention of torch, and `nn.MultiheadAttention`."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.norm, self.layer_norm = nn.GroupNorm(2, channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        self.heads = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        assert c % 2 == 0, f"{c} channels"
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, c, h * w).unbind(1)
        weights = (torch.einsum("bci,bcj->bij", q, k) * c**-0.5).softmax(-1)
        attended = torch.bmm(v, weights.transpose(1, 2)).view(b, c, h, w)
        fused = F.scaled_dot_product_attention(q, k, v).view(b, c, h, w)
        rows = self.layer_norm(x.flatten(2).transpose(1, 2))
        rows, _ = self.heads(rows, rows, rows)
        return self.dropout(x + self.out(attended) + fused + rows.transpose(1, 2).reshape(b, c, h, w))


class Wavelets(nn.Module):
    """Haar wavelets by grouped convolutions, interpolation, masks, lists, and errors."""

    wavelet: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("wavelet", torch.tensor([0.7071, 0.7071]))
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)])
        self.up, self.norm, self.pool = nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        groups = x.shape[1]
        kernel = self.wavelet.flip(0).reshape(1, 1, 1, -1).repeat(groups, 1, 1, 1)
        low = F.conv2d(F.pad(x, [0, 1, 0, 0], mode="reflect"), kernel, groups=groups, stride=[1, 2])
        parts: list[Tensor] = []
        for layer in self.layers:
            parts.append(F.silu(layer(low)))  # noqa: PERF401 - TorchScript iterates modules in loops only
        y = F.interpolate(
            torch.cat(parts, 1)[:, :8], scale_factor=2.0, mode="bilinear", align_corners=False
        )
        with torch.no_grad():
            y = self.norm(y)
        mask = torch.zeros_like(y)
        mask[:, :1] = y[:, :1]
        mask[mask < 0] = 0
        if y.numel() > 10**9:
            raise ValueError("too large")
        return F.gelu(self.pool(self.up(torch.where(mask > 0, y, mask).clamp_(-1.0, 1.0).nan_to_num())))


class Fsq(nn.Module):
    """Finite scalar quantisation as in Cosmos' `quantizers.py`."""

    levels: Tensor
    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor([8, 8, 8, 5, 5, 5], dtype=torch.int32))
        self.register_buffer("basis", torch.tensor([1, 8, 64, 512, 2560, 12800], dtype=torch.int32))

    def bound(self, z: Tensor, eps: float = 1e-3) -> Tensor:
        half = (self.levels - 1) * (1 + eps) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset

    def to_codes(self, indices: Tensor) -> Tensor:
        digits = (indices.unsqueeze(-1) // self.basis) % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        bounded = self.bound(z)
        codes = (bounded + (bounded.round() - bounded).detach()) / (self.levels // 2)
        shifted = codes * (self.levels // 2) + self.levels // 2
        return (shifted * self.basis).sum(-1).to(torch.int32), codes


class CausalConv(nn.Module):
    """A 3D convolution that sees the first frame repeated before it."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :, :1].repeat(1, 1, 2, 1, 1), x], 2)
        return self.conv(F.pad(x, (1, 1, 1, 1, 0, 0)))


class CosmosEncoder(nn.Module):
    """`[B, 3, 1, 16h, 16w]` to `(indices [B, 1, h, w], codes)`, in the manner of Cosmos-DV."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.down = CausalConv(3, 8), nn.GroupNorm(1, 8), nn.AvgPool2d(16)
        self.project, self.fsq = nn.Linear(8, 6), Fsq()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv(x)
        h = self.norm(h) * torch.sigmoid(h)
        h = self.down(h.squeeze(2)).permute(0, 2, 3, 1)
        indices, codes = self.fsq(self.project(h))
        return indices.unsqueeze(1), codes.permute(0, 3, 1, 2).unsqueeze(2)


class CosmosDecoder(nn.Module):
    """`[B, 1, h, w]` codes to `[B, 3, 1, 16h, 16w]`."""

    def __init__(self) -> None:
        super().__init__()
        self.fsq, self.project, self.attention = Fsq(), nn.Linear(6, 8), Attention()
        self.out = nn.Conv2d(8, 3 * 256, 1)

    def forward(self, indices: Tensor) -> Tensor:
        h = self.project(self.fsq.to_codes(indices.squeeze(1))).permute(0, 3, 1, 2)
        mask = torch.tril(torch.ones(h.shape[2], h.shape[2])).masked_fill(torch.eye(h.shape[2]) > 0, 1.0)
        h = self.attention(h) + mask.mean()
        return F.pixel_shuffle(self.out(h), 16).clamp(-1.0, 1.0).unsqueeze(2)
