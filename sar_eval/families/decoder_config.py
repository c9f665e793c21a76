"""The decoder's settings in a checkpoint's `config.json`, read and checked without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput

MAX_SIZE = 1 << 30  # of a width, a vocabulary or a number of positions
MAX_LAYERS = 10_000
_REFUSED = {
    "quantization_config": "quantised weights are",
    "use_sliding_window": "sliding-window attention is",
    "attention_bias": "attention with biases is",
    "mlp_bias": "an MLP with biases is",
}


# What a `config.json` of Llama leaves out, which is its default (transformers' LlamaConfig).
LLAMA_DEFAULTS: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True, slots=True)
class Switches:
    """Where a network differs from Qwen2's, which the defaults describe.

    Attributes:
        qkv_bias: queries, keys and values have a bias.
        grid: rows and columns of the picture, where the rotary angles of an image token are those of its
            place in it, and a prefix has none; None where angles are of the slot.
        head_start: id of the head's first row; ids below it, of text, cannot be predicted.
        head_inner: inner width of a head that is an MLP (Linear, GELU, rows, with biases); 0 where it is
            rows alone.
        qk_norm: queries and keys are normalised head by head before they are rotated, as Qwen3's.
        sandwich_norms: what attention and the MLP give is normalised before it is added, as in GLM-4's.
    """

    qkv_bias: bool = True
    grid: tuple[int, int] | None = None
    head_start: int = 0
    head_inner: int = 0
    qk_norm: bool = False
    sandwich_norms: bool = False


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The settings of a decoder that change its output, by their names in a `config.json` of Qwen2."""

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
    switches: Switches = Switches()

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Read the contents of `config.json`.

        Raises:
            BadInput: a value is missing, no number or out of range, or the architecture is not supported.
        """
        _check_architecture(config)
        return cls._read(config)

    @classmethod
    def from_llama(cls, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> DecoderConfig:
        """Read the settings of a Llama: queries, keys and values without bias.

        Args:
            config: of the language model; `null` is as good as silence.
            defaults: of what it leaves out, beside Llama's own.

        Raises:
            BadInput: a value is no number or out of range, or makes another network than a Llama.
        """
        given = {key: value for key, value in config.items() if value is not None}
        settings = {**LLAMA_DEFAULTS, **defaults, **given}
        _check_llama(settings)
        settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
        return replace(cls._read(settings), switches=Switches(qkv_bias=False))

    @classmethod
    def _read(cls, config: Mapping[str, Any]) -> DecoderConfig:
        rope = config.get("rope_parameters") or {}
        _check_rope(config.get("rope_scaling") or {"type": "default"})
        _check_rope({"type": "default", **rope} if isinstance(rope, Mapping) else rope)
        hidden, heads = whole_number(config, "hidden_size"), whole_number(config, "num_attention_heads")
        decoder = cls(
            hidden_size=hidden,
            intermediate_size=whole_number(config, "intermediate_size"),
            num_hidden_layers=whole_number(config, "num_hidden_layers", MAX_LAYERS),
            num_attention_heads=heads,
            num_key_value_heads=whole_number(config, "num_key_value_heads"),
            head_dim=whole_number(config, "head_dim") if config.get("head_dim") else hidden // heads,
            vocab_size=whole_number(config, "vocab_size"),
            rope_theta=_positive(rope if rope.get("rope_theta") else config, "rope_theta"),
            rms_norm_eps=_positive(config, "rms_norm_eps"),
            tie_word_embeddings=_flag(config, "tie_word_embeddings"),
            max_position_embeddings=whole_number(config, "max_position_embeddings"),
        )
        decoder._check_heads()
        return decoder

    @property
    def head_rows(self) -> int:
        """How many ids the head predicts."""
        return self.vocab_size - self.switches.head_start

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
    _refuse_set(config, ("quantization_config", "use_sliding_window"))
    if config.get("hidden_act", "silu") != "silu":
        raise BadInput(f"hidden_act is {shorten(config['hidden_act'])}: Qwen2's is 'silu'")


def _check_llama(config: Mapping[str, Any]) -> None:
    """Refuse what a Llama's config may say and this decoder does not compute."""
    _refuse_set(config, ("quantization_config", "attention_bias", "mlp_bias"))
    if config.get("hidden_act", "silu") != "silu":
        raise BadInput(f"hidden_act is {shorten(config['hidden_act'])}: only 'silu' is supported")


def _refuse_set(config: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if config.get(name):
            raise BadInput(f"{_REFUSED[name]} not supported ({name})")


def whole_number(config: Mapping[str, Any], key: str, high: int = MAX_SIZE) -> int:
    """A whole number from 1 of a config.

    Raises:
        BadInput: it is missing, none or out of range.
    """
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
