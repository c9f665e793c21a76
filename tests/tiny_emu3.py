"""A tiny Emu3-Gen of random weights in a folder, in BAAI's or transformers' form."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sar_eval.families import emu3_tensors, emu3_vision
from sar_eval.families.conv_decoder import DecoderShape
from sar_eval.families.emu3_tokenizer import FIRST_TOKENS, byte_letters
from sar_eval.families.tensor_names import decoder_shapes
from tests.picture_decoders import randomized

CODES, SIDE = 24, 32  # 4 x 4 codes of 8 pixels
IMAGE_TOKENS = ("<|image token|>", "<|image start|>", "<|image end|>")
TOKENS = (*FIRST_TOKENS, *IMAGE_TOKENS, *(f"<|visual token {code:06d}|>" for code in range(CODES)))
FIRST_CODE = 256 + len(TOKENS) - CODES
LLAMA: dict[str, Any] = {
    "vocab_size": 256 + len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 320,
}
# Its heads are 32 wide, the narrowest that vLLM's attention on a CPU computes.
WIDE_LLAMA = LLAMA | {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "original": {
        **LLAMA,
        "model_type": "Emu3",
        "architectures": ["Emu3ForCausalLM"],
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-5,
        "image_area": SIDE * SIDE,
        "boi_token_id": FIRST_CODE - 2,
    },
    "transformers": {
        "model_type": "emu3",
        "architectures": ["Emu3ForConditionalGeneration"],
        "text_config": {**LLAMA, "model_type": "emu3_text_model"},
        "image_area": SIDE * SIDE,
    },
}


def config_of(naming: str, llama: Mapping[str, Any] = LLAMA) -> dict[str, Any]:
    """The contents of `config.json`, for another Llama."""
    config = CONFIGS[naming]
    if naming == "original":
        return config | dict(llama)
    return config | {"text_config": config["text_config"] | dict(llama)}


def network_tensors(naming: str, config: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The network; the same numbers in both namings."""
    generator = torch.Generator().manual_seed(6)
    rules = emu3_tensors.ORIGINAL if naming == "original" else emu3_tensors.TRANSFORMERS
    return {
        rules.renamed(name): torch.randn(shape, generator=generator) * 0.3 + ("norm" in name)
        for name, shape in decoder_shapes(emu3_tensors.emu3_config(config or CONFIGS[naming]))
    }


def vision_tensors(naming: str, codes: int = CODES) -> dict[str, Tensor]:
    """The picture decoder, and a tensor that only looking at pictures needs."""
    model = emu3_vision.KIND.build(DecoderShape(codes, emu3_vision.CODE_WIDTH, (32,) * 4, 1))
    stored = {name: tensor.detach() for name, tensor in randomized(model).state_dict().items()}
    stored["quant_conv.conv.bias"] = torch.zeros(4)
    if naming == "original":
        return stored
    return in_transformers_form(stored, "vqmodel.")


def in_transformers_form(stored: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of BAAI's visual tokenizer as transformers has them: some convolutions are matrices."""
    names = {name: emu3_vision.TRANSFORMERS.renamed(name) for name in stored}
    return {
        prefix + new: stored[name][..., 0, 0].contiguous() if new.endswith("_proj.weight") else stored[name]
        for name, new in names.items()
    }


def tokenizer_json(tokens: Sequence[str]) -> dict[str, Any]:
    """The contents of a `tokenizer.json` as transformers' converter writes it, of bytes without merges.

    Special tokens are in the vocabulary, too, and the rule for words is GPT-2's.
    """
    special = {token: 256 + number for number, token in enumerate(tokens)}
    words = {letter: number for number, letter in enumerate(byte_letters())}
    return {
        "added_tokens": [{"id": n, "content": token, "special": True} for token, n in special.items()],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {"type": "BPE", "vocab": words | special, "merges": []},
    }


def write_text_tokenizer(folder: Path, naming: str) -> None:
    """The files of bytes without merges, and the special tokens."""
    if naming == "transformers":
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(TOKENS)))
        return
    ranks = [f"{base64.b64encode(bytes([number])).decode()} {number}" for number in range(256)]
    (folder / "emu3.tiktoken").write_text("\n".join(ranks))
    (folder / "emu3_vision_tokens.txt").write_text("\n".join(TOKENS[len(FIRST_TOKENS) :]) + "\n")


def write_emu3(
    folder: Path, naming: str = "original", shards: int = 1, llama: Mapping[str, Any] = LLAMA
) -> Path:
    """A folder with all files of a checkpoint; beside BAAI's there is `vision`, which it names."""
    folder.mkdir(parents=True)
    config = config_of(naming, llama)
    (folder / "config.json").write_text(json.dumps(config))
    write_text_tokenizer(folder, naming)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    tensors = network_tensors(naming, config)
    if naming == "transformers":
        save_shards(tensors | vision_tensors(naming), folder, shards)
        return folder
    save_shards(tensors, folder, shards)
    vision = folder.parent / "vision"
    vision.mkdir(exist_ok=True)
    (vision / "config.json").write_text(json.dumps({"model_type": "Emu3VisionVQ"}))
    save_file(vision_tensors(naming), vision / "model.safetensors")
    (folder / "sar_eval.json").write_text(json.dumps({"visual_tokenizer": "../vision"}))
    return folder


def save_shards(tensors: dict[str, Tensor], folder: Path, shards: int) -> None:
    """One file, or several and the index that names them."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    files = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)]
    index = {name: files[number % shards] for number, name in enumerate(sorted(tensors))}
    for file in files:
        save_file({name: tensors[name] for name in index if index[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
