"""Load a checkpoint's weights onto a device, into our decoder."""

from __future__ import annotations

import torch

from sar_eval.decoding.transformer import Decoder
from sar_eval.families.family import TokenCheckpoint


def load_decoder(checkpoint: TokenCheckpoint, device: str, dtype: str) -> Decoder:
    """Load the weights into our decoder.

    Raises:
        BadInput: the weights do not fit `config.json`.
    """
    weights = checkpoint.read_weights(device, getattr(torch, dtype))
    return Decoder(checkpoint.decoder_config, weights)
