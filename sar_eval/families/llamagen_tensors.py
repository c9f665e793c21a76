"""LlamaGen's network for pictures from text (Sun et al., arXiv 2406.06525).

Its files have no config: widths are those of the tensors, the number of heads that of the authors' network
of that size, the grid that of the picture that is asked for. Rotary embedding pairs neighbours there; the
rows of queries and keys are put in the order in which ours pairs halves, which changes no product of the
two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig, Switches
from sar_eval.families.network_tensors import MatchedNetwork, Naming, match_network
from sar_eval.families.tensor_names import EMBEDDING, HEAD, Shape, decoder_shapes
from sar_eval.tensors.wrapped_names import common_prefix

if TYPE_CHECKING:
    from torch import Tensor

PREFIX_PLACES = 120  # embeddings of the caption, with those that are masked
# Defaults of the authors' ModelArgs, which no script of theirs changes.
ROPE_THETA, NORM_EPS = 10000.0, 1e-5
# Layers and width to heads (GPT-B to GPT-7B in the authors' gpt.py).
HEADS = {
    (12, 768): 12,
    (24, 1024): 16,
    (36, 1280): 20,
    (48, 1536): 24,
    (48, 2560): 40,
    (22, 2048): 32,
    (24, 3200): 32,
    (32, 4096): 32,
}
CAPTION = ("cls_embedding.cap_proj.fc1.weight", "cls_embedding.cap_proj.fc2.weight")
UNPROMPTED = "cls_embedding.uncond_embedding"
_QKV = re.compile(r"(model\.layers\.\d+\.)self_attn\.qkv_proj\.weight")
ORIGINAL = Naming(
    (
        (r"model\.embed_tokens\.", "tok_embeddings."),
        (r"lm_head\.", "output."),
        (r"model\.norm\.", "norm."),
        (r"model\.(layers\.\d+)\.self_attn\.qkv_proj\.", r"\1.attention.wqkv."),
        (r"model\.(layers\.\d+)\.self_attn\.o_proj\.", r"\1.attention.wo."),
        (r"model\.(layers\.\d+)\.mlp\.gate_proj\.", r"\1.feed_forward.w1."),
        (r"model\.(layers\.\d+)\.mlp\.down_proj\.", r"\1.feed_forward.w2."),
        (r"model\.(layers\.\d+)\.mlp\.up_proj\.", r"\1.feed_forward.w3."),
        (r"model\.(layers\.\d+)\.input_layernorm\.", r"\1.attention_norm."),
        (r"model\.(layers\.\d+)\.post_attention_layernorm\.", r"\1.ffn_norm."),
    )
)


def llamagen_config(
    shapes: Mapping[str, Shape], side: int, where: str, heads: int | None = None
) -> DecoderConfig:
    """The network's settings of its tensors.

    Args:
        shapes: of the tensors in the file.
        side: codes along one side of the picture; 16 for 256 pixels, 32 for 512.
        where: the file, for messages.
        heads: of attention, which the tensors do not say; None for those of the authors' network of that
            size.

    Raises:
        BadInput: there is no such network, or none of the authors' sizes.
    """
    shapes = _without_prefix(shapes)
    for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"):
        if len(shapes.get(name, ())) != 2:
            raise BadInput(f"{where} is no network of LlamaGen: it has no matrix {name!r}")
    codes, hidden = shapes["tok_embeddings.weight"]
    layers = len({match[1] for name in shapes if (match := re.match(r"layers\.(\d+)\.", name))})
    heads = HEADS.get((layers, hidden)) if heads is None else heads
    if heads is None:
        raise BadInput(
            f"{where}: {layers} layers of width {hidden} are no network of LlamaGen's authors, and tensors "
            'do not say how many heads they have: write {"heads": NUMBER} to sar_eval.json beside the file'
        )
    if not hidden or hidden % (4 * heads):
        raise BadInput(
            f"{where}: a width of {hidden} does not divide into {heads} heads with pairs in rows"
        )
    return DecoderConfig(
        hidden_size=hidden,
        intermediate_size=shapes["layers.0.feed_forward.w1.weight"][0],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=codes,
        rope_theta=ROPE_THETA,
        rms_norm_eps=NORM_EPS,
        tie_word_embeddings=False,
        max_position_embeddings=PREFIX_PLACES + side * side,
        switches=Switches(qkv_bias=False, grid=(side, side)),
    )


def is_network(names: Iterable[str]) -> bool:
    """Whether tensors of these names are a network of LlamaGen's for text, behind any wrapper.

    Half of those that tell it are enough, so that of a damaged one the missing tensor can be named.
    """
    found = set(names)
    prefix = common_prefix(found)
    telling = {prefix + name for name in (UNPROMPTED, *CAPTION, "tok_embeddings.weight")}
    return 2 * len(telling & found) >= len(telling)


def _without_prefix(shapes: Mapping[str, Shape]) -> Mapping[str, Shape]:
    prefix = common_prefix(shapes)
    return {name.removeprefix(prefix): shape for name, shape in shapes.items()}


def match_llamagen(shapes: Mapping[str, Shape], config: DecoderConfig, where: str) -> MatchedNetwork:
    """Find the network among the tensors under `model` of the authors' file.

    Args:
        shapes: of these tensors.
        config: of `llamagen_config`.
        where: the file, for messages.

    Raises:
        BadInput: a tensor is missing, empty, foreign or misshapen.
    """
    width = (_without_prefix(shapes).get(UNPROMPTED) or (0, 0))[-1]
    stored = match_network(shapes, llamagen_shapes(config, width), (ORIGINAL,), where)
    return MatchedNetwork(config, stored, _unfused, where)


def llamagen_shapes(config: DecoderConfig, width: int) -> dict[str, Shape]:
    """Name and shape of every tensor of the network as files have it: queries, keys and values in one.

    Names are the decoder's own and LlamaGen's for what makes the prefix.

    Args:
        config: of `llamagen_config`.
        width: numbers in one of T5's embeddings.
    """
    hidden = config.hidden_size
    expected = {
        name: size for name, size in decoder_shapes(config) if not re.search(r"\.[qkv]_proj\.", name)
    }
    for layer in range(config.num_hidden_layers):
        expected[f"model.layers.{layer}.self_attn.qkv_proj.weight"] = (3 * hidden, hidden)
    captions = {
        CAPTION[0]: (hidden, width),
        CAPTION[1]: (hidden, hidden),
        UNPROMPTED: (PREFIX_PLACES, width),
    }
    return {**expected, **captions}


def _unfused(config: DecoderConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's tensors: queries, keys and values apart, the first two with rows reordered."""
    weights = {n: t for n, t in tensors.items() if n in (EMBEDDING, HEAD) or n.startswith("model.")}
    for name in [name for name in weights if _QKV.fullmatch(name)]:
        query, key, value = weights.pop(name).chunk(3)
        prefix = name.removesuffix("qkv_proj.weight")
        weights[f"{prefix}q_proj.weight"] = halves_of_neighbours(query, config.head_dim)
        weights[f"{prefix}k_proj.weight"] = halves_of_neighbours(key, config.head_dim)
        weights[f"{prefix}v_proj.weight"] = value
    return weights


def halves_of_neighbours(weight: Tensor, head_dim: int) -> Tensor:
    """Rows `[heads * head_dim, in]` reordered: rotary pairs, here neighbours, come head_dim / 2 apart.

    Within a head the even rows come first, then the odd ones.
    """
    heads = weight.view(-1, head_dim // 2, 2, weight.shape[-1])
    return heads.transpose(1, 2).reshape(weight.shape)


@dataclass(frozen=True, slots=True)
class CaptionPrefix:
    """What makes a prefix of T5's embeddings, by two products without bias and GELU's tanh form between.

    Attributes:
        inner: `[hidden, T5's width]`.
        outer: `[hidden, hidden]`.
        unprompted: the learned embeddings `[120, T5's width]` of no caption.
    """

    inner: Tensor
    outer: Tensor
    unprompted: Tensor

    @classmethod
    def of(cls, network: MatchedNetwork, tensors: Mapping[str, Tensor]) -> CaptionPrefix:
        """Of the tensors of a file, of which those of the decoder are not needed."""
        return cls(*(tensors[network.stored[name]] for name in (*CAPTION, UNPROMPTED)))

    def rows(self, embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The prefixes `[n, hidden]` of the prompted and the unprompted row.

        Masked places are left out: nobody attends to them, and a prefix has no rotary angle that its
        places could change. The unprompted row has the prompt's mask.

        Args:
            embeddings: T5's at the 120 places, as the network gets them (packed left), `[120, width]`.
            mask: places of the caption, boolean `[120]`, n of them.
        """
        return self._project(embeddings[mask]), self._project(self.unprompted[mask])

    def _project(self, embeddings: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            inner = F.linear(embeddings.to(self.inner.dtype), self.inner)
            return F.linear(F.gelu(inner, approximate="tanh"), self.outer)
