"""Classifier-free guidance (CFG): how the logits of the two branches of a draw are combined."""

from __future__ import annotations

import torch
from torch import Tensor


def apply_guidance(logits: Tensor, guidance: float) -> Tensor:
    """Combine the logits of the prompted and the negative branch.

        scores = negative + guidance * (prompted - negative)

    This is classifier-free guidance (Ho and Salimans, arXiv 2207.12598, where `guidance` is 1 + w) on the
    log-probabilities of the next token, as SimpleAR's generation script applies it. Here it is applied to
    the logits themselves: log-softmax would subtract one constant from each row, so the result differs by
    one constant per draw, which changes neither the softmax of the scores nor their order.

    Args:
        logits: `[2B, V]`, B prompted rows, then the negative rows of the same draws.
        guidance: the scale; 1 gives the prompted branch alone, 0 the negative branch alone.

    Returns:
        Scores float32 `[B, V]`: log-probabilities of the guided distribution up to a constant per row.
    """
    prompted, negative = logits.float().chunk(2)
    return torch.lerp(negative, prompted, guidance)
