"""Load a checkpoint's weights onto a device, into our decoder or into transformers' model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import BadInput
from sar_eval.families.simplear import Checkpoint

ROPE = ("rope_parameters", "rope_theta")  # the newer and the older key of transformers


def load_decoder(checkpoint: Checkpoint, device: str, dtype: str) -> Decoder:
    """Load the weights into our decoder.

    Raises:
        BadInput: the weights do not fit `config.json`.
    """
    weights = checkpoint.read_weights(device, getattr(torch, dtype))
    return Decoder(checkpoint.decoder_config, weights)


def load_transformers(checkpoint: Checkpoint, device: str, dtype: str) -> Any:
    """Load the weights into transformers' `Qwen2ForCausalLM`, in evaluation mode; no remote code.

    Raises:
        BadInput: the weights do not fit `config.json`.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**_settings(checkpoint)))
    weights = checkpoint.read_weights(device, getattr(torch, dtype))
    if checkpoint.decoder_config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    try:
        incompatible = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise BadInput(f"{checkpoint.folder}: {str(error).splitlines()[1].strip()}") from error
    if incompatible.missing_keys:
        raise BadInput(f"the weights have no tensor {incompatible.missing_keys[0]!r}")
    with torch.device(device):  # computed, not stored in the weights, so not on the meta device
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model.eval()


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """What of `config.json` makes the decoder; the rest may be anything."""
    settings = asdict(checkpoint.decoder_config)
    theta = settings.pop("rope_theta")
    rope = {name: checkpoint.config[name] for name in ROPE if name in checkpoint.config}
    return settings | (rope or {"rope_theta": theta})
