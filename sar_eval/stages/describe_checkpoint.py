"""A checkpoint in figures: shape, vocabulary ranges, digest, memory."""

from __future__ import annotations

from typing import Any

from sar_eval.errors import BadInput
from sar_eval.families.diffusers_folder import find_pipeline, is_pipeline
from sar_eval.families.family import TokenCheckpoint
from sar_eval.families.recognise import find_checkpoint
from sar_eval.families.simplear import ITEMSIZE


def describe(name: str, visual_tokenizer: str, dtype: str) -> dict[str, Any]:
    """Facts about a checkpoint; memory is that of the first GPU, or of this machine without one.

    Of a pipeline of diffusers: its class, components, licence and size.

    Raises:
        BadInput: no such dtype, or a checkpoint whose files do not fit together.
    """
    if dtype not in ITEMSIZE:
        raise BadInput(f"unknown dtype {dtype!r}: {', '.join(ITEMSIZE)}")
    if is_pipeline(name):
        return _pipeline_facts(name, dtype)
    import torch

    from sar_eval.decoding.memory import TYPICAL_PROMPT_TOKENS, draw_bytes, free_bytes, kv_bytes, max_draws

    found = find_checkpoint(name, visual_tokenizer)
    config, size = found.decoder_config, ITEMSIZE[dtype]
    side = found.native_resolution // found.downsample
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parameters = found.parameters
    one = draw_bytes(config, size, 2, TYPICAL_PROMPT_TOKENS + side**2, found.codebook_size)
    free = free_bytes(device)
    return {
        "checkpoint": found.name,
        "family": found.family,
        "visual_tokenizer": str(found.visual_folder),
        "notes": list(found.notes),
        "digest": found.digest,
        "licences": dict(found.licences),
        "protocols": list(found.presets),
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
        "text_ids": _in_words(_text_ids(found)),
        "visual_ids": _in_words(found.visual_ids),
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


def _pipeline_facts(name: str, dtype: str) -> dict[str, Any]:
    """What a pipeline is, as its files say; diffusers need not be installed."""
    found = find_pipeline(name)
    parameters = found.parameters
    return {
        "checkpoint": found.name,
        "kind": f"a pipeline of diffusers, {found.class_name}: drawn by the engine diffusers",
        "notes": list(found.notes),
        "digest": found.digest,
        "licence": found.licence or "not stated",
        "components": {name: ".".join(entry) for name, entry in found.components.items()},
        "without": list(found.absent),
        "parameters": sum(parameters.values()),
        "parameters_of": parameters,
        "resolution": {"pixels": found.native_resolution, "pixels_a_latent": found.downsample},
        "dtype": dtype,
        "weights_bytes": sum(parameters.values()) * ITEMSIZE[dtype],
    }


def _text_ids(found: TokenCheckpoint) -> range:
    """The ids beside the visual ones, which come last or first."""
    start = 0 if found.visual_ids.start else found.visual_ids.stop
    return range(start, start + found.text_vocab_size)


def _in_words(ids: range) -> str:
    return f"{ids.start} to {ids.stop - 1}" if ids else "none"
