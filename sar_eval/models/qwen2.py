"""The Qwen2 decoder, inference only: static KV cache, head over a range of rows.

Written for reading beside the equations. Weights are the tensors of a Hugging Face checkpoint,
by their names there; parity with transformers is a test.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.errors import BadInput
from sar_eval.models.shape import Shape


class Cache:
    """Keys and values of all layers for `rows` sequences of at most `length` tokens."""

    def __init__(self, shape: Shape, rows: int, length: int, like: Tensor) -> None:
        size = (shape.layers, rows, shape.kv_heads, length, shape.head_dim)
        self.keys, self.values = like.new_zeros(size), like.new_zeros(size)
        self.filled = 0


class Decoder:
    """Qwen2 in one device's memory."""

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor]) -> None:
        """Take weights by Hugging Face names.

        Raises:
            BadInput: a tensor is missing or has another shape than `config.json` says.
        """
        self.shape = shape
        self.embedding = _take(weights, "model.embed_tokens.weight", (shape.vocabulary, shape.hidden))
        self.head = self.embedding if shape.tied else _take(weights, "lm_head.weight", self.embedding.shape)
        self.norm = _take(weights, "model.norm.weight", (shape.hidden,))
        self.layers = [_Layer(shape, weights, f"model.layers.{i}.") for i in range(shape.layers)]
        exponents = torch.arange(0, shape.head_dim, 2, device=self.norm.device).float() / shape.head_dim
        self.frequencies = 1.0 / shape.rope_theta**exponents

    def new_cache(self, rows: int, length: int) -> Cache:
        """An empty cache on the weights' device."""
        return Cache(self.shape, rows, length, self.norm)

    def forward(self, tokens: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        """Final hidden states of the last token of each row.

        Args:
            tokens: ids `[R, T]`, appended to the cache.
            positions: their rotary positions `[R, T]`.
            cache: filled up to `cache.filled`, which grows by T.
            visible: booleans `[R, 1, T, filled + T]`, True where attention may look; None is all.

        Returns:
            `[R, hidden]`, after the last norm.
        """
        x = F.embedding(tokens, self.embedding)
        angles = positions[:, None, :, None].float() * self.frequencies
        rotation = torch.cat([angles, angles], -1)
        cos, sin = rotation.cos().to(x.dtype), rotation.sin().to(x.dtype)
        for number, layer in enumerate(self.layers):
            x = layer.forward(x, (cos, sin), cache, number, visible)
        cache.filled += tokens.shape[1]
        return F.rms_norm(x[:, -1], (self.shape.hidden,), self.norm, self.shape.epsilon)


class _Layer:
    def __init__(self, shape: Shape, weights: Mapping[str, Tensor], prefix: str) -> None:
        self.shape = shape
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        widths = {"q": query, "k": key, "v": key}
        attention = {
            f"{n}.{part}": _take(weights, f"{prefix}self_attn.{n}_proj.{part}", size)
            for n, width in widths.items()
            for part, size in (("weight", (width, shape.hidden)), ("bias", (width,)))
        }
        self.qkv = torch.cat([attention[f"{n}.weight"] for n in widths])
        self.qkv_bias = torch.cat([attention[f"{n}.bias"] for n in widths])
        self.widths = list(widths.values())
        self.out = _take(weights, f"{prefix}self_attn.o_proj.weight", (shape.hidden, query))
        wide = (shape.intermediate, shape.hidden)
        parts = [_take(weights, f"{prefix}mlp.{name}_proj.weight", wide) for name in ("gate", "up")]
        self.gate_up = torch.cat(parts)
        self.down = _take(weights, f"{prefix}mlp.down_proj.weight", wide[::-1])
        self.norm1 = _take(weights, f"{prefix}input_layernorm.weight", (shape.hidden,))
        self.norm2 = _take(weights, f"{prefix}post_attention_layernorm.weight", (shape.hidden,))

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache, number: int, visible: Tensor | None
    ) -> Tensor:
        size = (self.shape.hidden,)
        h = F.rms_norm(x, size, self.norm1, self.shape.epsilon)
        x = x + self._attend(h, rotation, cache, number, visible)
        h = F.rms_norm(x, size, self.norm2, self.shape.epsilon)
        gate, up = F.linear(h, self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)

    def _attend(
        self, h: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache, number: int, visible: Tensor | None
    ) -> Tensor:
        rows, length, _ = h.shape
        parts = F.linear(h, self.qkv, self.qkv_bias).split(self.widths, -1)
        q, k, v = (p.view(rows, length, -1, self.shape.head_dim).transpose(1, 2) for p in parts)
        past, end = cache.filled, cache.filled + length
        cache.keys[number, :rows, :, past:end] = _rotate(k, *rotation)
        cache.values[number, :rows, :, past:end] = v
        keys, values = cache.keys[number, :rows, :, :end], cache.values[number, :rows, :, :end]
        mixed = F.scaled_dot_product_attention(
            _rotate(q, *rotation), keys, values, attn_mask=visible, enable_gqa=True
        )
        return F.linear(mixed.transpose(1, 2).reshape(rows, length, -1), self.out)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, halves paired as in Qwen2."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _take(weights: Mapping[str, Tensor], name: str, size: tuple[int, ...]) -> Tensor:
    if name not in weights:
        raise BadInput(f"the weights have no tensor {name!r}")
    if tuple(weights[name].shape) != tuple(size):
        raise BadInput(f"tensor {name!r} is {tuple(weights[name].shape)}, config.json says {tuple(size)}")
    return weights[name]
