"""A tiny LlamaGen of random weights: network, picture decoder and T5, named as the authors name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from sar_eval.families import llamagen_tensors, vq16
from sar_eval.families.conv_decoder import DecoderShape

CODES, HEADS, HIDDEN, LAYERS, WIDTH = 24, 4, 32, 2, 8
SIDE = 64  # pixels, 4 codes
NETWORK, VISUAL = "t2i_tiny_stage1_64", "vq_ds16_t2i"


def write_t5(folder: Path, **changed: Tensor | None) -> Path:
    """A random T5 encoder with one id a byte, in the hub's files; None leaves a tensor out."""
    folder.mkdir(exist_ok=True)
    vocabulary = {"<pad>": 0, "</s>": 1} | {
        letter: 2 + n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.enable_truncation(5)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = T5Config(vocab_size=260, d_model=WIDTH, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path) | changed
    save_file({name: t for name, t in tensors.items() if t is not None}, path)
    return folder


def network_tensors(seed: int = 4) -> dict[str, Tensor]:
    """Those of the network's file, under the authors' names."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"tok_embeddings.weight": (CODES, HIDDEN), "layers.0.feed_forward.w1.weight": (48, HIDDEN)}
    layers = {f"layers.{n}.": (1,) for n in range(LAYERS)}
    config = llamagen_tensors.llamagen_config(sizes | layers, SIDE // 16, "here", HEADS)
    shapes = llamagen_tensors.llamagen_shapes(config, WIDTH)
    return {
        llamagen_tensors.ORIGINAL.renamed(name): torch.randn(shape, generator=generator) * 0.3
        + (1 if "norm" in name else 0)
        for name, shape in shapes.items()
    }


def visual_tensors() -> dict[str, Tensor]:
    """Those of the picture decoder's file, and some of those that drawing does not need."""
    generator = torch.Generator().manual_seed(5)
    tensors = {"encoder.conv_in.bias": torch.zeros(32), "quantize.codebook_used": torch.zeros(9)}
    for name, tensor in vq16.KIND.build(DecoderShape(CODES, 32, (32,) * 5, 1)).state_dict().items():
        ones = 1 if "norm" in name and name.endswith("weight") else 0
        values = torch.randn(tensor.shape, generator=generator) * 0.1 + ones
        tensors[vq16.ORIGINAL.renamed(name)] = values
    return tensors


def save(tensors: dict[str, Tensor], path: Path, wrapper: str = "model") -> Path:
    """Write a safetensors or a torch file, its tensors under a key as the authors' have them."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({wrapper: tensors, "steps": 7} if wrapper else tensors, path)
    return path


def write_llamagen(folder: Path, suffix: str = ".pt", wrapper: str = "model") -> Path:
    """A folder with all files of a checkpoint."""
    folder.mkdir()
    save(network_tensors(), folder / f"{NETWORK}{suffix}", wrapper)
    save(visual_tensors(), folder / f"{VISUAL}{suffix}", wrapper)
    write_t5(folder / "t5")
    write_settings(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    return folder


def write_settings(folder: Path, **more: Any) -> Path:
    """`sar_eval.json` with the number of heads, which no tensor says."""
    (folder / "sar_eval.json").write_text(json.dumps({"heads": HEADS} | more))
    return folder
