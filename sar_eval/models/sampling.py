"""From logits to the next visual token: guidance, temperature, top-k, top-p, shared noise."""

from __future__ import annotations

import torch
from torch import Tensor

from sar_eval.models.noise import gumbel
from sar_eval.types import DrawProtocol


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Combine `[2B, V]` (B prompted rows, then their B negative rows) to `[B, V]` log-probabilities.

    `log p = log p_neg + s (log p_pos - log p_neg)`: classifier-free guidance (arXiv 2207.12598) as
    SimpleAR's generation script applies it. The result is not normalised, which sampling does not
    need.
    """
    positive, negative = logits.float().log_softmax(-1).chunk(2)
    return negative + guidance * (positive - negative)


def narrow(scores: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set `[B, V]` scores outside the top k, then outside the nucleus of mass `top_p`, to -inf."""
    if 0 < top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1:
        ordered, places = scores.sort(dim=-1, descending=True)
        mass = ordered.softmax(-1).cumsum(-1)
        # A token stays while the mass before it is below top_p, so the likeliest one always does.
        outside = mass - ordered.softmax(-1) >= top_p
        scores = scores.masked_fill(outside.gather(-1, places.argsort(-1)), -torch.inf)
    return scores


def sample(scores: Tensor, keys: Tensor, ids: Tensor, protocol: DrawProtocol) -> Tensor:
    """Visual codes `[B]` drawn from `[B, V]` scores by the Gumbel-max trick.

    Args:
        scores: log-probabilities of the visual tokens, up to a constant a row.
        keys: noise keys int32 `[B, 2]` of this position (see `noise.noise_keys`).
        ids: the visual tokens' codes int32 `[V]`.
        protocol: temperature, top-k and top-p are used.
    """
    if protocol.temperature == 0:
        return scores.argmax(-1)
    scores = narrow(scores / protocol.temperature, protocol.top_k, protocol.top_p)
    return (scores + gumbel(keys, ids)).argmax(-1)
