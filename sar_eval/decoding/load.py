"""Load a checkpoint's weights onto a device, into our decoder or into transformers' model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sar_eval.decoding.transformer import Decoder
from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.family import TokenCheckpoint
from sar_eval.families.simplear import Checkpoint
from sar_eval.families.tensor_names import EMBEDDING, HEAD

ROPE = ("rope_parameters", "rope_theta")  # the newer and the older key of transformers


def load_decoder(checkpoint: TokenCheckpoint, device: str, dtype: str) -> Decoder:
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

    config = Qwen2Config(**decoder_settings(checkpoint.decoder_config, checkpoint.config))
    weights = checkpoint.read_weights(device, getattr(torch, dtype))
    return assemble(Qwen2ForCausalLM, config, weights, device, str(checkpoint.folder))


def assemble(kind: Any, config: Any, weights: dict[str, Tensor], device: str, where: str) -> Any:
    """transformers' model of given weights, in evaluation mode, without making random ones first.

    Args:
        kind: `Qwen2ForCausalLM` or a class of that base.
        config: transformers' `Qwen2Config`.
        weights: by Hugging Face name, on `device`; a tied head may be left out.
        device: of the weights.
        where: they come from, for messages.

    Raises:
        BadInput: the weights do not fit `config`.
    """
    with torch.device("meta"):
        model = kind(config)
    if config.tie_word_embeddings:
        weights = {**weights, HEAD: weights[EMBEDDING]}
    try:
        incompatible = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise BadInput(f"{where}: {str(error).splitlines()[1].strip()}") from error
    if incompatible.missing_keys:
        raise BadInput(f"the weights have no tensor {incompatible.missing_keys[0]!r}")
    with torch.device(device):  # computed, not stored in the weights, so not on the meta device
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def decoder_settings(config: DecoderConfig, stored: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `config.json` makes the decoder, as `Qwen2Config` takes it; the rest may be anything.

    Args:
        config: as it was read and checked.
        stored: the file's contents, for the rotary embedding's key, which has two names.
    """
    settings = asdict(config)
    theta, _ = settings.pop("rope_theta"), settings.pop("switches")  # Qwen2's: it has none of them
    rope = {name: stored[name] for name in ROPE if name in stored}
    return settings | (rope or {"rope_theta": theta})
