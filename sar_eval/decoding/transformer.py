"""The decoder of all token families for inference, with a static KV cache.

Written to be read beside the equations. It is Qwen2's; where other families differ, `Switches` says how.
Weights are the tensors of a Hugging Face checkpoint of Qwen2, under their names there, and each family's
are translated to them; tests compare the logits with transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.decoding.linear import Linear, keep_out_of_graphs
from sar_eval.decoding.rotary import GridRotary, SlotRotary
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.tensor_names import EMBEDDING, HEAD, HEAD_BIAS, HEAD_PROJECTION, layer_norms


class KVCache:
    """Keys and values `[layers, rows, kv_heads, slots, head_dim]`; slot i holds a row's i-th token.

    `image_starts` int64 `[rows, 1]`, each row's slot of its first image token, has to be set where rotary
    angles are of places in the picture, and is not read elsewhere.
    """

    def __init__(self, config: DecoderConfig, rows: int, slots: int, like: Tensor) -> None:
        """Allocate the cache with the dtype and device of `like`."""
        size = (config.num_hidden_layers, rows, config.num_key_value_heads, slots, config.head_dim)
        # Zeros, not uninitialised memory: a NaN in a masked slot would still spread.
        self.keys, self.values = like.new_zeros(size), like.new_zeros(size)
        self.row_indices = torch.arange(rows, device=like.device)[:, None]
        self.slot_indices = torch.arange(slots, device=like.device)
        # Past all slots, so that angles of places are refused until it is set.
        self.image_starts = torch.full((rows, 1), slots, device=like.device)


class Decoder:
    """A decoder on one device.

    Attributes:
        config: its settings.
        embedding: `[vocab_size, hidden]`.
        head: `[head_rows, width]`, the rows of the ids from `switches.head_start` on.
        head_bias: `[head_rows]`, None without one.
    """

    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor]) -> None:
        """Use weights by their Hugging Face names.

        Raises:
            BadInput: a tensor is missing or has another shape than `config.json` says.
        """
        self.config, self.compiled = config, False
        self.embedding, self.norm, rows, self.head_bias = self._outer(weights)
        self.head = self.embedding if rows is None else rows
        projection = self._projection(weights)
        self.projection = None if projection is None else Linear(*projection)
        layers = range(config.num_hidden_layers)
        self.layers = [_Layer(config, weights, f"model.layers.{i}.") for i in layers]
        grid = config.switches.grid
        self.slot_rotary = SlotRotary(config, self.norm)
        self.grid_rotary = None if grid is None else GridRotary(config, grid, self.norm)

    def _outer(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Embedding, last norm, and where there are any of their own the head's rows and their bias."""
        config, hidden = self.config, self.config.hidden_size
        rows, inner = config.head_rows, config.switches.head_inner
        embedding = _weight(weights, EMBEDDING, (config.vocab_size, hidden))
        head = None if config.tie_word_embeddings else _weight(weights, HEAD, (rows, inner or hidden))
        bias = _weight(weights, HEAD_BIAS, (rows,)) if inner else None
        return embedding, _weight(weights, "model.norm.weight", (hidden,)), head, bias

    def _projection(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the first product of a head that is an MLP."""
        inner, hidden = self.config.switches.head_inner, self.config.hidden_size
        if not inner:
            return None
        weight = _weight(weights, f"{HEAD_PROJECTION}.weight", (inner, hidden))
        return weight, _weight(weights, f"{HEAD_PROJECTION}.bias", (inner,))

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights into the tensors that are there, whose addresses CUDA graphs hold.

        Args:
            weights: as for the constructor, of any dtype and on any device.

        Raises:
            BadInput: a tensor is missing or has another shape; some others have then been copied.
        """
        own = (self.embedding, self.norm, self.head, self.head_bias)
        for tensor, weight in zip(own, self._outer(weights), strict=True):
            if tensor is not None and weight is not None:
                tensor.copy_(weight)
        if self.projection is not None and (projection := self._projection(weights)):
            self.projection.load(*projection)
        for layer in self.layers:
            layer.load_weights(weights)

    def head_of(self, first: int, end: int) -> tuple[Tensor, Tensor | None]:
        """Rows of the head for the ids from `first` to before `end`, and their bias; views, no copies.

        Raises:
            BadInput: the head does not predict all of these ids.
        """
        start = self.config.switches.head_start
        if not start <= first < end <= self.config.vocab_size:
            raise BadInput(
                f"the ids {first} to {end - 1} are asked for, and this network predicts {start} to "
                f"{self.config.vocab_size - 1}: its text cannot be sampled (full_vocab)"
            )
        rows = slice(first - start, end - start)
        return self.head[rows], None if self.head_bias is None else self.head_bias[rows]

    def compile(self) -> None:
        """Compile everything but attention for steps of one token; one compilation serves all layers."""
        before = torch.compile(_Layer._before_attention, dynamic=False)
        after = torch.compile(_Layer._after_attention, dynamic=False)
        keep_out_of_graphs()
        for layer in self.layers:
            layer.compiled = MethodType(before, layer), MethodType(after, layer)
        self.compiled = True

    def new_cache(self, rows: int, slots: int) -> KVCache:
        """An empty cache on the weights' device."""
        return KVCache(self.config, rows, slots, self.norm)

    def forward(self, inputs: Tensor, positions: Tensor, cache: KVCache, length: int) -> Tensor:
        """What the head's rows are multiplied with, `[R, T, width]`.

        That is the hidden states after the last norm, and where the head is an MLP after its inner product
        and GELU.

        Each row has its own positions, so prompts of different lengths share a batch without padding
        between prompt and image. A token attends to its row's slots up to its own.

        Args:
            inputs: ids int64 `[R, T]`, or embeddings `[R, T, hidden]` of any floating dtype, which are a
                prefix; their keys and values are written to the slots `positions`.
            positions: int64 `[R, T]`, the slot, and the rotary position where that is not a place.
            cache: of R rows.
            length: how many slots attention reads, at least the greatest position + 1.
        """
        prefix = inputs.is_floating_point()
        x = inputs.to(self.embedding.dtype) if prefix else F.embedding(inputs, self.embedding)
        if self.grid_rotary is None:
            rotary = self.slot_rotary(positions, x.dtype)
        elif prefix:
            rotary = self.grid_rotary.prefix(positions)
        else:
            rotary = self.grid_rotary(positions, cache.image_starts)
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        mask = (cache.slot_indices[:length] <= positions[..., None]).repeat(1, groups, 1)[:, None]
        for index, layer in enumerate(self.layers):
            x = layer.forward(x, rotary, cache, index, positions, mask)
        x = F.rms_norm(x, (self.config.hidden_size,), self.norm, self.config.rms_norm_eps)
        return x if self.projection is None else F.gelu(self.projection(x))


class _Layer:
    def __init__(self, config: DecoderConfig, weights: Mapping[str, Tensor], prefix: str) -> None:
        self.config, self.prefix = config, prefix
        key = config.num_key_value_heads * config.head_dim
        self.qkv_sizes = [config.num_attention_heads * config.head_dim, key, key]
        products = [Linear(*product) for product in self._products(weights)]
        self.qkv, self.out, self.gate_up, self.down = products
        self.norms = self._norms(weights)
        self.compiled: tuple[Callable[..., Any], Callable[..., Any]] = (
            self._before_attention,
            self._after_attention,
        )

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        products = (self.qkv, self.out, self.gate_up, self.down)
        for product, (weight, bias) in zip(products, self._products(weights), strict=True):
            product.load(weight, bias)
        for name, weight in self._norms(weights).items():
            self.norms[name].copy_(weight)

    def _products(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Weight and bias of the four products: queries, keys and values are one, gate and up another."""
        query, hidden, inner = self.qkv_sizes[0], self.config.hidden_size, self.config.intermediate_size
        qkv = [(f"self_attn.{n}_proj", size) for n, size in zip("qkv", self.qkv_sizes, strict=True)]
        yield (
            torch.cat([self._named(weights, f"{name}.weight", size, hidden) for name, size in qkv]),
            torch.cat([self._named(weights, f"{name}.bias", size) for name, size in qkv])
            if self.config.switches.qkv_bias
            else None,
        )
        yield self._named(weights, "self_attn.o_proj.weight", hidden, query), None
        gate_up = [self._named(weights, f"mlp.{n}_proj.weight", inner, hidden) for n in ("gate", "up")]
        yield torch.cat(gate_up), None
        yield self._named(weights, "mlp.down_proj.weight", hidden, inner), None

    def _norms(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        widths = layer_norms(self.config).items()
        return {name: self._named(weights, f"{name}.weight", width) for name, width in widths}

    def _normed(self, x: Tensor, name: str) -> Tensor:
        """`x` normalised over its last dimension; as it is where the network has no such norm."""
        if (norm := self.norms.get(name)) is None:
            return x
        return F.rms_norm(x, norm.shape, norm, self.config.rms_norm_eps)

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
        parts = self.qkv(self._normed(x, "input_layernorm")).split(self.qkv_sizes, -1)
        q, k, v = (p.view(rows, tokens, -1, self.config.head_dim).transpose(1, 2) for p in parts)
        q, k = self._normed(q, "self_attn.q_norm"), self._normed(k, "self_attn.k_norm")
        return _rotate(q, *rotary), _rotate(k, *rotary), v

    def _after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """Attention's output projection and the MLP, both added to `x` `[R, T, hidden]`."""
        rows, tokens, _ = x.shape
        attended = attended.reshape(rows, self.config.num_attention_heads, tokens, -1)
        attended = self.out(attended.transpose(1, 2).reshape(rows, tokens, -1))
        x = x + self._normed(attended, "post_self_attn_layernorm")
        gate, up = self.gate_up(self._normed(x, "post_attention_layernorm")).chunk(2, -1)
        return x + self._normed(self.down(F.silu(gate) * up), "post_mlp_layernorm")


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, dimension i paired with i + head_dim / 2."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _weight(weights: Mapping[str, Tensor], name: str, size: tuple[int, ...]) -> Tensor:
    """The tensor of that name, checked to be of that size."""
    if name not in weights:
        raise BadInput(f"the weights have no tensor {name!r}")
    if tuple(weights[name].shape) != tuple(size):
        raise BadInput(f"tensor {name!r} is {tuple(weights[name].shape)}, config.json says {tuple(size)}")
    return weights[name]
