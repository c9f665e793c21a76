"""A checkpoint in figures: shape, vocabulary ranges, digest, memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from sar_eval.errors import BadInput
from sar_eval.families.simplear import ITEMSIZE, Checkpoint, find_checkpoint


def describe(name: str, visual_tokenizer: str, dtype: str) -> dict[str, Any]:
    """Facts about a checkpoint; memory is that of the first GPU, or of this machine without one.

    Raises:
        BadInput: no such dtype, or a checkpoint whose files do not fit together.
    """
    import torch

    from sar_eval.decoding.memory import TYPICAL_PROMPT_TOKENS, draw_bytes, free_bytes, kv_bytes, max_draws

    if dtype not in ITEMSIZE:
        raise BadInput(f"unknown dtype {dtype!r}: {', '.join(ITEMSIZE)}")
    found = find_checkpoint(name, visual_tokenizer)
    config, size = found.decoder_config, ITEMSIZE[dtype]
    side = found.native_resolution // found.downsample
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parameters = _parameters(found)
    one = draw_bytes(config, size, 2, TYPICAL_PROMPT_TOKENS + side**2, found.codebook_size)
    free = free_bytes(device)
    return {
        "checkpoint": found.name,
        "visual_tokenizer": str(found.visual_folder),
        "digest": found.digest,
        "parameters": parameters,
        "decoder": {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "intermediate": config.intermediate_size,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "positions": config.max_position_embeddings,
            "tied": config.tie_word_embeddings,
        },
        "text_ids": f"0 to {found.text_vocab_size - 1}",
        "visual_ids": f"{found.text_vocab_size} to {config.vocab_size - 1}",
        "visual_codes": found.codebook_size,
        "resolution": {
            "pixels": found.native_resolution,
            "visual_tokens": side**2,
            "pixels_a_token": found.downsample,
        },
        "dtype": dtype,
        "weights_bytes": parameters * size,
        "kv_bytes_per_token": kv_bytes(config, size),
        "image_bytes": one,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "free_bytes": free,
        "images_at_once": max_draws(max(0, free - parameters * size), one),
    }


def _parameters(found: Checkpoint) -> int:
    """Numbers in the weight files, from their headers where they have one."""
    from sar_eval.tensors.weight_files import read_torch_file

    total = 0
    for path in found.weight_files:
        if path.suffix == ".safetensors":
            total += sum(math.prod(entry["shape"]) for entry in _header(path).values())
        else:
            total += sum(tensor.numel() for tensor in read_torch_file(path).values())
    return total


def _header(path: Path) -> dict[str, Any]:
    """Names and shapes of a safetensors file: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (ValueError, OverflowError, MemoryError) as error:
        raise BadInput(f"{path} is no readable safetensors file: {error}") from error
    header.pop("__metadata__", None)
    return header
