"""CLIP's architecture: by open_clip's name, or from a JSON file of open_clip's or Hugging Face's form.

Only the plain form is built: a vision transformer that ends in its class token, a causal text transformer
that is read at its end token. That is what OpenAI, LAION, HPSv2 and PickScore published.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_eval.discover import need
from sar_eval.documents import parse_json, read_bytes
from sar_eval.errors import BadInput
from sar_eval.networks.clip.source import Published

MAX_CONFIG_BYTES = 1_000_000
ACTIVATIONS = {True: "QuickGELU", False: "GELU"}  # classes, by whether `quick_gelu` is set
VISION_KEYS = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
# What Hugging Face's CLIPConfig leaves out of a file where it has its default value.
HF_VISION: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
HF_TEXT: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
HF_BOTH: dict[str, Any] = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def read_architecture(config: str) -> dict[str, Any]:
    """The sizes of an architecture, in open_clip's form.

    Args:
        config: a name that open_clip knows, or a .json file with `vision_cfg` and `text_cfg` (open_clip) or
            `vision_config` and `text_config` (Hugging Face).

    Raises:
        BadInput: no such name or file, or something else than plain CLIP.
    """
    if not config.endswith(".json"):
        return _plain(_named(config), config)
    path = Path(config)
    if not path.is_file():
        raise BadInput(f"no CLIP configuration {config}")
    content = parse_json(read_bytes(path, MAX_CONFIG_BYTES), config)
    if not isinstance(content, dict):
        raise BadInput(f"{config} is no CLIP configuration: a table is needed")
    content = content.get("model_cfg", content)  # as open_clip writes it for the hub
    if "vision_config" not in content:
        return _plain(content, config)
    try:
        return _plain(_from_hf(content, config), config)
    except (TypeError, ZeroDivisionError) as error:
        raise BadInput(f"{config}: the sizes of a CLIP must be whole numbers ({error})") from error


def build(architecture: Mapping[str, Any], config: str) -> Any:
    """A model of open_clip without memory for its weights; `load_state_dict(..., assign=True)` gives it.

    Raises:
        BadInput: sizes that do not fit each other.
    """
    open_clip = _open_clip()
    try:
        with torch.device("meta"):
            model = open_clip.CLIP(**architecture)
    except Exception as error:  # torch and open_clip raise what they like for impossible sizes
        raise BadInput(f"CLIP configuration {config} cannot be built: {error}") from error
    model.attn_mask = causal_mask(model.context_length)  # no weight, so no file has it
    return model.eval()


def causal_mask(length: int) -> Tensor:
    """Float32 `[length, length]`, added to attention's logits: minus infinity for later tokens."""
    return torch.full((length, length), float("-inf")).triu(1)


def check_activation(model: Any, config: str, published: Published) -> None:
    """Every block of both towers must have the activation that the weights were trained with.

    The same tensors fit either, and give other features: OpenAI trained with QuickGELU,
    x * sigmoid(1.702 x), LAION's ViT-H and what was tuned from it with plain GELU.

    Raises:
        BadInput: a block has another one.
    """
    wanted = ACTIVATIONS[published.quick_gelu]
    for tower, transformer in {"image": model.visual.transformer, "text": model.transformer}.items():
        for block in transformer.resblocks:
            found = type(block.mlp.gelu).__name__
            if found != wanted:
                raise BadInput(
                    f"CLIP model {config!r} has {found} in its {tower} tower, but its weights were trained "
                    f'with {wanted}: use {published.architecture}, or a configuration with "quick_gelu": '
                    f"{str(published.quick_gelu).lower()}"
                )


def _named(name: str) -> dict[str, Any]:
    found = _open_clip().get_model_config(name)
    if found is None:
        raise BadInput(f"open_clip has no model {name!r}")
    return dict(found)


def _open_clip() -> Any:
    return need("open_clip", extra="scorers", what="CLIP")


def _plain(content: Mapping[str, Any], config: str) -> dict[str, Any]:
    """The sizes alone.

    Raises:
        BadInput: another kind of tower, or a key whose meaning is not known.
    """
    vision, text = content.get("vision_cfg"), content.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise BadInput(f"CLIP configuration {config} has no tables vision_cfg and text_cfg")
    others = [*(vision.keys() - VISION_KEYS), *(text.keys() - TEXT_KEYS)]
    others += content.keys() - {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
    if others or not isinstance(vision.get("layers"), int):
        why = f" ({', '.join(sorted(others))})" if others else ""
        raise BadInput(f"{config} is no plain CLIP of two transformers{why}")
    return dict(content)


def _from_hf(content: Mapping[str, Any], config: str) -> dict[str, Any]:
    """The open_clip form of a CLIPConfig."""
    vision: dict[str, Any] = HF_BOTH | HF_VISION | _table(content, "vision_config", config)
    text: dict[str, Any] = HF_BOTH | HF_TEXT | _table(content, "text_config", config)
    activations = {vision["hidden_act"], text["hidden_act"]}
    if len(activations) > 1 or not activations <= {"quick_gelu", "gelu"}:
        raise BadInput(f"{config}: activations {sorted(activations)}; both must be quick_gelu, or gelu")
    if {vision["layer_norm_eps"], text["layer_norm_eps"]} != {1e-5}:
        raise BadInput(f"{config}: layer_norm_eps must be 1e-5")
    return {
        "embed_dim": content.get("projection_dim", 512),
        "quick_gelu": activations == {"quick_gelu"},
        "vision_cfg": {
            **_hf_sizes(vision),
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "image_size": vision.get("image_size", 224),
            "patch_size": vision.get("patch_size", 32),
        },
        "text_cfg": {
            **_hf_sizes(text),
            "heads": text["num_attention_heads"],
            "context_length": text.get("max_position_embeddings", 77),
            "vocab_size": text.get("vocab_size", 49408),
        },
    }


def _table(content: Mapping[str, Any], name: str, config: str) -> dict[str, Any]:
    table = content.get(name)
    if not isinstance(table, dict):
        raise BadInput(f"CLIP configuration {config} has no table {name}")
    return table


def _hf_sizes(tower: Mapping[str, Any]) -> dict[str, Any]:
    """With a ratio that open_clip, which truncates, turns into the same width again."""
    width, inner = tower["hidden_size"], tower["intermediate_size"]
    ratio = inner / width
    if int(width * ratio) != inner:
        ratio = (inner + 0.5) / width
    return {"width": width, "layers": tower["num_hidden_layers"], "mlp_ratio": ratio}
