"""Which tensors a decoder has, and whether those of a checkpoint are they; known from names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.tensors.wrapped_names import INNER, common_prefix

Shape = tuple[int, ...]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Of a head that is an MLP. No checkpoint has these names: each family's are translated to them.
HEAD_BIAS, HEAD_PROJECTION = "lm_head.bias", "head_projection"
FLOATS = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16")
# Buffers that are computed, and that older versions of transformers stored.
HARMLESS = re.compile(r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|masked_bias)")
_KINDS = (
    (
        r".*lora_.*|.*\.(modules_to_save|base_layer)\..*|base_model\.model\..*|(.*\.)?(ia3_.*|prompt_embeddings.*)",
        "an adapter that is not merged: merge it with peft's merge_and_unload, then save_pretrained",
    ),
    (
        r".*\.(qweight|qzeros|g_idx|weight_scale(_inv)?|SCB|absmax|quant_map|weight_packed|input_scale)(\..+)?",
        "quantised weights, which are not supported: use the checkpoint that they were made from",
    ),
    (r"(score|v_head|value_head|reward_head|classifier)\..*", "the head of a reward or value model"),
    (r"(optimizer|exp_avg|state)\b.*", "the state of an optimizer"),
)


@dataclass(frozen=True, slots=True)
class TensorNames:
    """A checkpoint's tensors by the decoder's names.

    Attributes:
        stored: the decoder's name to the name in the files.
        prefix: what all names in the files began with, or some have inside; "" for nothing.
        has_head: a tied checkpoint stores its head, too.
    """

    stored: Mapping[str, str]
    prefix: str
    has_head: bool


def match_tensors(
    shapes: Mapping[str, Shape], config: DecoderConfig, padded: int, where: str
) -> TensorNames:
    """Match a checkpoint's tensors with those of the decoder.

    Args:
        shapes: of the tensors in the files.
        config: of the decoder.
        padded: rows that embedding and head may have in all, at least `config.vocab_size`.
        where: the checkpoint, for messages.

    Raises:
        BadInput: a tensor is missing, empty, of another shape, or not the decoder's; the message names it.
    """
    prefix = common_prefix(shapes)
    plain = {name: INNER.sub("", name.removeprefix(prefix)) for name in shapes}
    left = common_prefix(plain.values())
    names = {short.removeprefix(left): name for name, short in plain.items()}
    if len(names) < len(plain):
        raise BadInput(f"{where}: tensors are there twice, with and without what a trainer put into names")
    expected = dict(decoder_shapes(config))
    if foreign := [n for n in names if n not in expected and n != HEAD and not HARMLESS.fullmatch(n)]:
        raise BadInput(f"{where}: {describe_foreign(sorted(foreign))}")
    if empty := sorted(name for name in names if math.prod(shapes[names[name]]) == 0):
        raise BadInput(f"{where}: {describe_empty(empty)}")
    for name, size in expected.items():
        _check_shape(name, size, shapes.get(names.get(name, "")), padded, config, where)
    stored = {name: names[name] for name in (*expected, HEAD) if name in names}
    inner = next((found[0] for name in shapes if (found := INNER.search(name))), "")
    return TensorNames(stored, prefix or left or inner, HEAD in names and config.tie_word_embeddings)


def decoder_shapes(config: DecoderConfig) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every tensor of a decoder; a Qwen2's are those of its checkpoints."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    yield EMBEDDING, (config.vocab_size, hidden)
    yield from _head_shapes(config)
    yield "model.norm.weight", (hidden,)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for name, size in (("q", query), ("k", key), ("v", key)):
            yield f"{prefix}self_attn.{name}_proj.weight", (size, hidden)
            if config.switches.qkv_bias:
                yield f"{prefix}self_attn.{name}_proj.bias", (size,)
        yield f"{prefix}self_attn.o_proj.weight", (hidden, query)
        yield f"{prefix}mlp.gate_proj.weight", (inner, hidden)
        yield f"{prefix}mlp.up_proj.weight", (inner, hidden)
        yield f"{prefix}mlp.down_proj.weight", (hidden, inner)
        for name, width in layer_norms(config).items():
            yield f"{prefix}{name}.weight", (width,)


def layer_norms(config: DecoderConfig) -> dict[str, int]:
    """Names in a layer of its norms' weights, and their widths; switched ones are Qwen3's and GLM-4's."""
    hidden, head, switches = config.hidden_size, config.head_dim, config.switches
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if switches.sandwich_norms:
        norms |= {"post_self_attn_layernorm": hidden, "post_mlp_layernorm": hidden}
    if switches.qk_norm:
        norms |= {"self_attn.q_norm": head, "self_attn.k_norm": head}
    return norms


def _head_shapes(config: DecoderConfig) -> Iterator[tuple[str, Shape]]:
    if inner := config.switches.head_inner:
        yield f"{HEAD_PROJECTION}.weight", (inner, config.hidden_size)
        yield f"{HEAD_PROJECTION}.bias", (inner,)
        yield HEAD_BIAS, (config.head_rows,)
    if not config.tie_word_embeddings:
        yield HEAD, (config.head_rows, inner or config.hidden_size)


def refuse_types(types: Mapping[str, str], where: str) -> None:
    """Refuse weights that are no plain floating-point numbers: without their scales they draw noise.

    Args:
        types: of the decoder's tensors by name, as safetensors or torch call them.
        where: the checkpoint, for messages.

    Raises:
        BadInput: naming the first.
    """
    if odd := sorted(name for name, dtype in types.items() if dtype.removeprefix("torch.") not in FLOATS):
        raise BadInput(
            f"{where}: {len(odd)} tensors are of type {types[odd[0]]} ({odd[0]}, ...): quantised weights "
            "are not supported, use the checkpoint that they were made from"
        )


def _check_shape(
    name: str, size: Shape, shape: Shape | None, padded: int, config: DecoderConfig, where: str
) -> None:
    if shape is None:
        why = " (config.json says tie_word_embeddings false: is it true?)" if name == HEAD else ""
        raise BadInput(f"{where}: the weights have no tensor {name!r}{why}")
    rows = (
        range(config.vocab_size, padded + 1) if name in (EMBEDDING, HEAD) else range(size[0], size[0] + 1)
    )
    if shape[1:] != size[1:] or len(shape) != len(size) or shape[0] not in rows:
        raise BadInput(f"{where}: tensor {name!r} is {shape}, config.json says {size}")


def describe_foreign(
    names: list[str], why: str = "no part of the decoder that config.json describes"
) -> str:
    """What tensors are that no decoder has, or, as `why` says, not this one."""
    for pattern, kind in _KINDS:
        if found := [name for name in names if re.fullmatch(pattern, name)]:
            return f"{len(found)} tensors are {kind} ({found[0]}, ...)"
    return (
        f"{len(names)} tensors are {why} "
        f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): they are of another model, or "
        "config.json is"
    )


def describe_empty(names: list[str]) -> str:
    """Where tensors without numbers come from."""
    return (
        f"{len(names)} tensors are empty ({names[0]}, ...): saved by one process of ZeRO-3, which had not "
        "gathered them. In the training's folder run `python zero_to_fp32.py . OUT --safe_serialization`, "
        "or save with stage3_gather_16bit_weights_on_model_save"
    )
