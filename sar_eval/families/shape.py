"""The numbers of a decoder's `config.json`, read and checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sar_eval.errors import BadInput


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of `config.json` that decide the computation."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    rope_theta: float
    epsilon: float
    tied: bool
    positions: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Shape:
        """From the contents of `config.json`.

        Raises:
            BadInput: a number is missing, or the architecture is another one.
        """
        if config.get("model_type") != "qwen2":
            raise BadInput(f"model_type is {config.get('model_type')!r}, only 'qwen2' decoders are known")
        rope = config.get("rope_parameters") or {}
        if config.get("rope_scaling") or rope.get("rope_type", "default") != "default":
            raise BadInput("scaled rotary embeddings are not supported")
        if config.get("use_sliding_window"):
            raise BadInput("sliding-window attention is not supported")
        try:
            heads = int(config["num_attention_heads"])
            return cls(
                hidden=int(config["hidden_size"]),
                intermediate=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config["num_key_value_heads"]),
                head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
                vocabulary=int(config["vocab_size"]),
                rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
                epsilon=float(config["rms_norm_eps"]),
                tied=bool(config.get("tie_word_embeddings", False)),
                positions=int(config["max_position_embeddings"]),
            )
        except KeyError as error:
            raise BadInput(f"no key {error}") from error
        except (TypeError, ValueError) as error:
            raise BadInput(f"a value is no number: {error}") from error
