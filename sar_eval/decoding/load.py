"""Load a checkpoint's weights onto a device, into our decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from sar_eval.decoding.transformer import Decoder
from sar_eval.families.family import TokenCheckpoint
from sar_eval.families.recognise import find_checkpoint


def load_decoder(checkpoint: TokenCheckpoint, device: str, dtype: str) -> Decoder:
    """Load the weights into our decoder.

    Raises:
        BadInput: the weights do not fit `config.json`.
    """
    weights = checkpoint.read_weights(device, getattr(torch, dtype))
    return Decoder(checkpoint.decoder_config, weights)


def read_named_weights(name: str, visual_tokenizer: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The decoder's tensors of the checkpoint of that name, on the CPU, for another process to load.

    Raises:
        UnknownName: there is no such checkpoint.
        BadInput: its files are missing, unreadable or not those of the decoder.
    """
    return find_checkpoint(name, visual_tokenizer).read_weights("cpu", dtype)
