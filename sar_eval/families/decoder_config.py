"""The decoder's settings in a checkpoint's `config.json`, read and checked without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput

MAX_SIZE = 1 << 30  # of a width, a vocabulary or a number of positions
MAX_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The settings of a Qwen2 decoder that change its output, by their names in `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    max_position_embeddings: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Read the contents of `config.json`.

        Raises:
            BadInput: a value is missing, no number or out of range, or the architecture is not supported.
        """
        _check_architecture(config)
        rope = config.get("rope_parameters") or {}
        _check_rope(config.get("rope_scaling") or {"type": "default"})
        _check_rope({"type": "default", **rope} if isinstance(rope, Mapping) else rope)
        hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
        decoder = cls(
            hidden_size=hidden,
            intermediate_size=_whole(config, "intermediate_size"),
            num_hidden_layers=_whole(config, "num_hidden_layers", MAX_LAYERS),
            num_attention_heads=heads,
            num_key_value_heads=_whole(config, "num_key_value_heads"),
            head_dim=_whole(config, "head_dim") if config.get("head_dim") else hidden // heads,
            vocab_size=_whole(config, "vocab_size"),
            rope_theta=_positive(rope if rope.get("rope_theta") else config, "rope_theta"),
            rms_norm_eps=_positive(config, "rms_norm_eps"),
            tie_word_embeddings=_flag(config, "tie_word_embeddings"),
            max_position_embeddings=_whole(config, "max_position_embeddings"),
        )
        decoder._check_heads()
        return decoder

    def _check_heads(self) -> None:
        heads, key_heads, width = self.num_attention_heads, self.num_key_value_heads, self.head_dim
        if heads % key_heads:
            raise BadInput(f"num_attention_heads {heads} is no multiple of num_key_value_heads {key_heads}")
        if width < 2 or width % 2:
            raise BadInput(f"a head is {width} wide (hidden_size / num_attention_heads): it must be even")


def _check_rope(rope: Any) -> None:
    """Refuse rotary embeddings that are scaled; `type` is what older versions of transformers write."""
    if not isinstance(rope, Mapping):
        raise BadInput(f"rope_parameters is {shorten(rope)}: a table is needed")
    if rope.get("rope_type", rope.get("type")) != "default":
        raise BadInput("scaled rotary embeddings are not supported")


def _check_architecture(config: Mapping[str, Any]) -> None:
    """Refuse what is no Qwen2 decoder, naming what it is."""
    architectures = config.get("architectures") or []
    named = (
        [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    )
    if config.get("model_type") != "qwen2":
        of = f" ({', '.join(named)})" if named else ""
        raise BadInput(
            f"model_type is {config.get('model_type')!r}{of}, only 'qwen2' decoders are supported, such as "
            "SimpleAR's (SimpARForCausalLM)"
        )
    if named and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named):
        raise BadInput(
            f"architectures is {', '.join(named)}: it has no head that predicts tokens (ForCausalLM)"
        )
    for name in ("quantization_config", "use_sliding_window"):
        if config.get(name):
            what = (
                "sliding-window attention is" if name == "use_sliding_window" else "quantised weights are"
            )
            raise BadInput(f"{what} not supported ({name})")
    if config.get("hidden_act", "silu") != "silu":
        raise BadInput(f"hidden_act is {shorten(config['hidden_act'])}: Qwen2's is 'silu'")


def _whole(config: Mapping[str, Any], key: str, high: int = MAX_SIZE) -> int:
    value = _number(config, key)
    if value != int(value) or not 1 <= value <= high:
        raise BadInput(f"{key} is {shorten(value)}: it must be a whole number from 1 to {high}")
    return int(value)


def _positive(config: Mapping[str, Any], key: str) -> float:
    value = _number(config, key)
    if not 0 < value < math.inf:
        raise BadInput(f"{key} is {shorten(value)}: it must be greater than 0")
    return float(value)


def _number(config: Mapping[str, Any], key: str) -> float:
    if key not in config:
        raise BadInput(f"no key {key!r}")
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise BadInput(f"a value is no number: {key} is {shorten(value)}")
    return value


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise BadInput(f"{key} is {shorten(value)}: it must be true or false")
    return bool(value)
