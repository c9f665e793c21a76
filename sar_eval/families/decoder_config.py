"""The decoder's settings in a checkpoint's `config.json`, read and checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sar_eval.errors import BadInput


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
            BadInput: a value is missing or is no number, or the architecture is not supported.
        """
        if config.get("model_type") != "qwen2":
            raise BadInput(
                f"model_type is {config.get('model_type')!r}, only 'qwen2' decoders are supported"
            )
        rope = config.get("rope_parameters") or {}
        if config.get("rope_scaling") or rope.get("rope_type", "default") != "default":
            raise BadInput("scaled rotary embeddings are not supported")
        if config.get("use_sliding_window"):
            raise BadInput("sliding-window attention is not supported")
        try:
            heads = int(config["num_attention_heads"])
            return cls(
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                num_hidden_layers=int(config["num_hidden_layers"]),
                num_attention_heads=heads,
                num_key_value_heads=int(config["num_key_value_heads"]),
                head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
                vocab_size=int(config["vocab_size"]),
                rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
                rms_norm_eps=float(config["rms_norm_eps"]),
                tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
                max_position_embeddings=int(config["max_position_embeddings"]),
            )
        except KeyError as error:
            raise BadInput(f"no key {error}") from error
        except (TypeError, ValueError) as error:
            raise BadInput(f"a value is no number: {error}") from error
