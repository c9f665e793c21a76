"""The Qwen2 decoder, inference only: static KV cache, head over a range of rows.

Written for reading beside the equations. Weights are the tensors of a Hugging Face checkpoint,
by their names there; parity with transformers is a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.decoding.linear import Linear
from sar_eval.errors import BadInput
from sar_eval.families.shape import Shape


class Cache:
    """Keys and values `[layers, rows, kv_heads, length, head_dim]`; slot i holds a row's i-th token."""

    def __init__(self, shape: Shape, rows: int, length: int, like: Tensor) -> None:
        size = (shape.layers, rows, shape.kv_heads, length, shape.head_dim)
        # Zeros, not whatever memory holds: a NaN in a slot that nobody may see would still spread.
        self.keys, self.values = like.new_zeros(size), like.new_zeros(size)
        self.rows = torch.arange(rows, device=like.device)[:, None]
        self.columns = torch.arange(length, device=like.device)


class Decoder:
    """Qwen2 in one device's memory."""

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor]) -> None:
        """Take weights by Hugging Face names.

        Raises:
            BadInput: a tensor is missing or has another shape than `config.json` says.
        """
        self.shape, self.compiled = shape, False
        self.embedding = _take(weights, "model.embed_tokens.weight", (shape.vocabulary, shape.hidden))
        self.head = self.embedding if shape.tied else _take(weights, "lm_head.weight", self.embedding.shape)
        self.norm = _take(weights, "model.norm.weight", (shape.hidden,))
        self.layers = [_Layer(shape, weights, f"model.layers.{i}.") for i in range(shape.layers)]
        exponents = torch.arange(0, shape.head_dim, 2, device=self.norm.device).float() / shape.head_dim
        self.frequencies = 1.0 / shape.rope_theta**exponents

    def compile(self) -> None:
        """Compile what surrounds attention for steps of one token; one compilation serves all layers."""
        project = torch.compile(_Layer._project, dynamic=False)
        finish = torch.compile(_Layer._finish, dynamic=False)
        for layer in self.layers:
            layer.compiled = MethodType(project, layer), MethodType(finish, layer)
        self.compiled = True

    def new_cache(self, rows: int, length: int) -> Cache:
        """An empty cache on the weights' device."""
        return Cache(self.shape, rows, length, self.norm)

    def forward(self, tokens: Tensor, positions: Tensor, cache: Cache, length: int) -> Tensor:
        """Final hidden states `[R, T, hidden]`, after the last norm.

        Each row stands at its own positions, so prompts of any lengths share a batch without padding
        between prompt and image. A token sees its row's slots up to its own.

        Args:
            tokens: ids `[R, T]`; their keys and values go to the slots `positions`.
            positions: int64 `[R, T]`, rotary position and slot at once.
            cache: of R rows.
            length: how many slots attention looks at, at least the greatest position + 1.
        """
        x = F.embedding(tokens, self.embedding)
        angles = positions[..., None].float() * self.frequencies
        rotation = torch.cat([angles, angles], -1)[:, None]
        turned = rotation.cos().to(x.dtype), rotation.sin().to(x.dtype)
        groups = self.shape.heads // self.shape.kv_heads
        visible = (cache.columns[:length] <= positions[..., None]).repeat(1, groups, 1)[:, None]
        for number, layer in enumerate(self.layers):
            x = layer.forward(x, turned, cache, number, positions, visible)
        return F.rms_norm(x, (self.shape.hidden,), self.norm, self.shape.epsilon)


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
        joined = [torch.cat([attention[f"{n}.{part}"] for n in widths]) for part in ("weight", "bias")]
        self.qkv = Linear(*joined)
        self.widths = list(widths.values())
        self.out = Linear(_take(weights, f"{prefix}self_attn.o_proj.weight", (shape.hidden, query)))
        wide = (shape.intermediate, shape.hidden)
        parts = [_take(weights, f"{prefix}mlp.{name}_proj.weight", wide) for name in ("gate", "up")]
        self.gate_up = Linear(torch.cat(parts))
        self.down = Linear(_take(weights, f"{prefix}mlp.down_proj.weight", wide[::-1]))
        self.norm1 = _take(weights, f"{prefix}input_layernorm.weight", (shape.hidden,))
        self.norm2 = _take(weights, f"{prefix}post_attention_layernorm.weight", (shape.hidden,))
        self.compiled: tuple[Callable[..., Any], Callable[..., Any]] = (self._project, self._finish)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        cache: Cache,
        number: int,
        slots: Tensor,
        visible: Tensor,
    ) -> Tensor:
        project, finish = self.compiled if x.shape[1] == 1 else (self._project, self._finish)
        q, k, v = project(x, rotation)
        keys, values = cache.keys[number], cache.values[number]
        keys[cache.rows, :, slots] = k.transpose(1, 2)
        values[cache.rows, :, slots] = v.transpose(1, 2)
        length = visible.shape[-1]
        # The heads that share keys are queries of one attention: no copy of keys for each of them.
        grouped = q.reshape(len(q), self.shape.kv_heads, -1, self.shape.head_dim)
        mixed = F.scaled_dot_product_attention(
            grouped, keys[:, :, :length], values[:, :, :length], attn_mask=visible
        )
        hidden: Tensor = finish(x, mixed)
        return hidden

    def _project(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned, and values: `[R, heads, T, head_dim]`."""
        rows, width, _ = x.shape
        h = F.rms_norm(x, (self.shape.hidden,), self.norm1, self.shape.epsilon)
        parts = self.qkv(h).split(self.widths, -1)
        q, k, v = (p.view(rows, width, -1, self.shape.head_dim).transpose(1, 2) for p in parts)
        return _rotate(q, *rotation), _rotate(k, *rotation), v

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Attention's projection and the feed-forward part, both added to `x` `[R, T, hidden]`."""
        rows, width, _ = x.shape
        mixed = mixed.reshape(rows, self.shape.heads, width, -1)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, width, -1))
        h = F.rms_norm(x, (self.shape.hidden,), self.norm2, self.shape.epsilon)
        gate, up = self.gate_up(h).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


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
