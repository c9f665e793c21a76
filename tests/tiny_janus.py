"""A tiny Janus of random weights in a folder, under DeepSeek's or transformers' names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor

from sar_eval.families import janus_tensors, vq16
from sar_eval.families.conv_decoder import DecoderShape
from sar_eval.families.janus_prompts import BEGIN, BEGIN_OF_IMAGE, PAD, PRO_ROLES

ROWS, CODES, SIDE = 264, 24, 64  # 261 of the text ids are the tokenizer's
SPECIALS = (BEGIN, PAD, BEGIN_OF_IMAGE, PRO_ROLES.user, PRO_ROLES.assistant)
LLAMA = {
    "model_type": "llama",
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "original": {
        "model_type": "multi_modality",
        "language_config": LLAMA,
        "gen_head_config": {"params": {"image_token_size": CODES, "image_token_embed": 40}},
        "vision_config": {"params": {"image_size": SIDE}},
    },
    "transformers": {
        "model_type": "janus",
        "text_config": LLAMA,
        "vq_config": {"num_embeddings": CODES, "projection_dim": 40},
        "vision_config": {"image_size": SIDE},
    },
}
NAMINGS = {
    "original": (janus_tensors.ORIGINAL, vq16.ORIGINAL, "gen_vision_model."),
    "transformers": (janus_tensors.TRANSFORMERS, vq16.TRANSFORMERS, "model.vqmodel."),
}


# Its heads are 32 wide, the narrowest that vLLM's attention on a CPU computes.
WIDE_LLAMA = LLAMA | {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}


def janus_config_of(naming: str, llama: Mapping[str, Any] = LLAMA) -> dict[str, Any]:
    """The contents of `config.json`, for another Llama."""
    key = "language_config" if naming == "original" else "text_config"
    return CONFIGS[naming] | {key: dict(llama)}


def janus_tensors_of(naming: str, config: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """All that a file needs; the same numbers in both namings."""
    shapes = janus_tensors.janus_shapes(janus_tensors.janus_config(config or CONFIGS[naming]))
    generator = torch.Generator().manual_seed(4)

    def values(shape: tuple[int, ...], scale: float) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    network, pixels, prefix = NAMINGS[naming]
    tensors = {
        network.renamed(name): values(shape, 0.3) + (1 if "norm" in name else 0)
        for name, shape in shapes.items()
    }
    decoder = vq16.KIND.build(DecoderShape(CODES, 32, (32,) * 5, 1)).state_dict()
    for name, tensor in decoder.items():
        ones = 1 if "norm" in name and name.endswith("weight") else 0
        tensors[prefix + pixels.renamed(name)] = values(tuple(tensor.shape), 0.1) + ones
    return tensors


def write_janus(
    folder: Path,
    naming: str = "original",
    layout: str = "safetensors",
    llama: Mapping[str, Any] = LLAMA,
) -> Path:
    """A folder with all files of a checkpoint; `layout` is "safetensors" or "bin"."""
    folder.mkdir()
    config = janus_config_of(naming, llama)
    (folder / "config.json").write_text(json.dumps(config))
    letters = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    tensors = janus_tensors_of(naming, config)
    if layout == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder
