"""The Qwen2 decoder for inference, with a static KV cache.

Written to be read beside the equations. Weights are the tensors of a Hugging Face checkpoint, under their
names there; a test compares the logits with transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.decoding.linear import Linear
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig


class KVCache:
    """Keys and values `[layers, rows, kv_heads, slots, head_dim]`; slot i holds a row's i-th token."""

    def __init__(self, config: DecoderConfig, rows: int, slots: int, like: Tensor) -> None:
        """Allocate the cache with the dtype and device of `like`."""
        size = (config.num_hidden_layers, rows, config.num_key_value_heads, slots, config.head_dim)
        # Zeros, not uninitialised memory: a NaN in a masked slot would still spread.
        self.keys, self.values = like.new_zeros(size), like.new_zeros(size)
        self.row_indices = torch.arange(rows, device=like.device)[:, None]
        self.slot_indices = torch.arange(slots, device=like.device)


class Decoder:
    """A Qwen2 decoder on one device."""

    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor]) -> None:
        """Use weights by their Hugging Face names.

        Raises:
            BadInput: a tensor is missing or has another shape than `config.json` says.
        """
        self.config, self.compiled = config, False
        embedding = (config.vocab_size, config.hidden_size)
        self.embedding = _weight(weights, "model.embed_tokens.weight", embedding)
        tied = config.tie_word_embeddings
        self.head = self.embedding if tied else _weight(weights, "lm_head.weight", embedding)
        self.norm = _weight(weights, "model.norm.weight", (config.hidden_size,))
        layers = range(config.num_hidden_layers)
        self.layers = [_Layer(config, weights, f"model.layers.{i}.") for i in layers]
        exponents = torch.arange(0, config.head_dim, 2, device=self.norm.device).float() / config.head_dim
        self.inverse_frequencies = 1.0 / config.rope_theta**exponents

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights into the tensors that are there, whose addresses CUDA graphs hold.

        Args:
            weights: as for the constructor, of any dtype and on any device.

        Raises:
            BadInput: a tensor is missing or has another shape; some others have then been copied.
        """
        self.embedding.copy_(_weight(weights, "model.embed_tokens.weight", self.embedding.shape))
        if not self.config.tie_word_embeddings:
            self.head.copy_(_weight(weights, "lm_head.weight", self.head.shape))
        self.norm.copy_(_weight(weights, "model.norm.weight", self.norm.shape))
        for layer in self.layers:
            layer.load_weights(weights)

    def compile(self) -> None:
        """Compile everything but attention for steps of one token; one compilation serves all layers."""
        before = torch.compile(_Layer._before_attention, dynamic=False)
        after = torch.compile(_Layer._after_attention, dynamic=False)
        for layer in self.layers:
            layer.compiled = MethodType(before, layer), MethodType(after, layer)
        self.compiled = True

    def new_cache(self, rows: int, slots: int) -> KVCache:
        """An empty cache on the weights' device."""
        return KVCache(self.config, rows, slots, self.norm)

    def forward(self, tokens: Tensor, positions: Tensor, cache: KVCache, length: int) -> Tensor:
        """Final hidden states `[R, T, hidden]`, after the last norm.

        Each row has its own positions, so prompts of different lengths share a batch without padding
        between prompt and image. A token attends to its row's slots up to its own.

        Args:
            tokens: ids `[R, T]`, or embeddings `[R, T, hidden]` in their place; their keys and values are
                written to the slots `positions`.
            positions: int64 `[R, T]`, both the rotary position and the slot.
            cache: of R rows.
            length: how many slots attention reads, at least the greatest position + 1.
        """
        x = tokens if tokens.is_floating_point() else F.embedding(tokens, self.embedding)
        angles = positions[..., None].float() * self.inverse_frequencies
        angles = torch.cat([angles, angles], -1)[:, None]
        rotary = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        mask = (cache.slot_indices[:length] <= positions[..., None]).repeat(1, groups, 1)[:, None]
        for index, layer in enumerate(self.layers):
            x = layer.forward(x, rotary, cache, index, positions, mask)
        return F.rms_norm(x, (self.config.hidden_size,), self.norm, self.config.rms_norm_eps)


class _Layer:
    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor], prefix: str) -> None:
        self.config, self.prefix = config, prefix
        key = config.num_key_value_heads * config.head_dim
        self.qkv_sizes = [config.num_attention_heads * config.head_dim, key, key]
        products = [Linear(*product) for product in self._products(weights)]
        self.qkv, self.out, self.gate_up, self.down = products
        self.attention_norm, self.mlp_norm = self._norms(weights)
        self.compiled: tuple[Callable[..., Any], Callable[..., Any]] = (
            self._before_attention,
            self._after_attention,
        )

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        products = (self.qkv, self.out, self.gate_up, self.down)
        for product, (weight, bias) in zip(products, self._products(weights), strict=True):
            product.load(weight, bias)
        for norm, weight in zip((self.attention_norm, self.mlp_norm), self._norms(weights), strict=True):
            norm.copy_(weight)

    def _products(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Weight and bias of the four products: queries, keys and values are one, gate and up another."""
        query, hidden, inner = self.qkv_sizes[0], self.config.hidden_size, self.config.intermediate_size
        qkv = [(f"self_attn.{n}_proj", size) for n, size in zip("qkv", self.qkv_sizes, strict=True)]
        yield (
            torch.cat([self._named(weights, f"{name}.weight", size, hidden) for name, size in qkv]),
            torch.cat([self._named(weights, f"{name}.bias", size) for name, size in qkv]),
        )
        yield self._named(weights, "self_attn.o_proj.weight", hidden, query), None
        gate_up = [self._named(weights, f"mlp.{n}_proj.weight", inner, hidden) for n in ("gate", "up")]
        yield torch.cat(gate_up), None
        yield self._named(weights, "mlp.down_proj.weight", hidden, inner), None

    def _norms(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        names = ("input_layernorm.weight", "post_attention_layernorm.weight")
        return [self._named(weights, name, self.config.hidden_size) for name in names]

    def _named(self, weights: Mapping[str, Tensor], name: str, *size: int) -> Tensor:
        return _weight(weights, self.prefix + name, size)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        cache: KVCache,
        index: int,
        slots: Tensor,
        mask: Tensor,
    ) -> Tensor:
        eager = self._before_attention, self._after_attention
        before_attention, after_attention = self.compiled if x.shape[1] == 1 else eager
        q, k, v = before_attention(x, rotary)
        keys, values = cache.keys[index], cache.values[index]
        keys[cache.row_indices, :, slots] = k.transpose(1, 2)
        values[cache.row_indices, :, slots] = v.transpose(1, 2)
        length = mask.shape[-1]
        # The query heads of one key head become queries of one attention, so that no keys are copied.
        grouped = q.reshape(len(q), self.config.num_key_value_heads, -1, self.config.head_dim)
        attended = F.scaled_dot_product_attention(
            grouped, keys[:, :, :length], values[:, :, :length], attn_mask=mask
        )
        hidden: Tensor = after_attention(x, attended)
        return hidden

    def _before_attention(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values, each `[R, heads, T, head_dim]`."""
        rows, tokens, _ = x.shape
        h = F.rms_norm(x, (self.config.hidden_size,), self.attention_norm, self.config.rms_norm_eps)
        parts = self.qkv(h).split(self.qkv_sizes, -1)
        q, k, v = (p.view(rows, tokens, -1, self.config.head_dim).transpose(1, 2) for p in parts)
        return _rotate(q, *rotary), _rotate(k, *rotary), v

    def _after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """Attention's output projection and the MLP, both added to `x` `[R, T, hidden]`."""
        rows, tokens, _ = x.shape
        attended = attended.reshape(rows, self.config.num_attention_heads, tokens, -1)
        x = x + self.out(attended.transpose(1, 2).reshape(rows, tokens, -1))
        h = F.rms_norm(x, (self.config.hidden_size,), self.mlp_norm, self.config.rms_norm_eps)
        gate, up = self.gate_up(h).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding; Qwen2 pairs dimension i with i + head_dim / 2."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _weight(weights: Mapping[str, Tensor], name: str, size: tuple[int, ...]) -> Tensor:
    """The tensor of that name, checked to be of that size."""
    if name not in weights:
        raise BadInput(f"the weights have no tensor {name!r}")
    if tuple(weights[name].shape) != tuple(size):
        raise BadInput(f"tensor {name!r} is {tuple(weights[name].shape)}, config.json says {tuple(size)}")
    return weights[name]
