"""From logits to the next visual token: guidance, temperature, top-k, top-p, Gumbel noise."""

from __future__ import annotations

import torch
from torch import Tensor

from sar_eval.decoding.guidance import apply_guidance
from sar_eval.decoding.noise import gumbel
from sar_eval.types import DrawProtocol


def apply_top_k_top_p(scores: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set `[B, V]` scores outside the top k, then outside the nucleus of mass `top_p`, to -inf."""
    if 0 < top_k < scores.shape[-1]:
        threshold = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < threshold, -torch.inf)
    if top_p < 1:
        ordered, order = scores.sort(dim=-1, descending=True)
        mass = ordered.softmax(-1).cumsum(-1)
        # A token is kept while the mass before it is below top_p, so the most likely one is always kept.
        outside = mass - ordered.softmax(-1) >= top_p
        scores = scores.masked_fill(outside.gather(-1, order.argsort(-1)), -torch.inf)
    return scores


def sample(
    logits: Tensor, keys: Tensor, noise_ids: Tensor, protocol: DrawProtocol
) -> tuple[Tensor, Tensor]:
    """Sample one token for each of B draws by the Gumbel-max trick.

    Args:
        logits: `[2B, V]` (prompted rows, then negative rows), or `[B, V]` where guidance is 1.
        keys: noise keys int32 `[B, 2]` of this position (see `noise.noise_keys`).
        noise_ids: the ids under which the noise of the V tokens is computed, int32 `[V]`.
        protocol: guidance, temperature, top-k and top-p are used.

    Returns:
        Indices into V int64 `[B]`, and whether the scores were finite, boolean `[B]`.
    """
    if logits.device.type != "cpu":
        return _sample(logits, keys, noise_ids, protocol)
    # One draw at a time fits the CPU's cache, and its sums are the same in a batch of any size.
    samples = [
        _sample(logits[i :: len(keys)], keys[i : i + 1], noise_ids, protocol) for i in range(len(keys))
    ]
    return torch.cat([indices for indices, _ in samples]), torch.cat([finite for _, finite in samples])


def process_logits(logits: Tensor, protocol: DrawProtocol) -> Tensor:
    """Apply guidance, temperature, top-k and top-p; at temperature 0 guidance alone.

    Args:
        logits: as for `sample`.
        protocol: how to sample.

    Returns:
        Scores float32 `[B, V]`: unnormalised log-probabilities of the distribution that is sampled from.
    """
    scores = apply_guidance(logits, protocol.guidance) if protocol.guidance != 1 else logits.float()
    if protocol.temperature == 0:
        return scores
    return apply_top_k_top_p(scores / protocol.temperature, protocol.top_k, protocol.top_p)


def log_probabilities(scores: Tensor, indices: Tensor) -> Tensor:
    """Log-probability float32 `[B]` of one index int64 `[B]` in each row of scores `[B, V]`."""
    return scores.gather(-1, indices[:, None])[:, 0] - scores.logsumexp(-1)


def _sample(
    logits: Tensor, keys: Tensor, noise_ids: Tensor, protocol: DrawProtocol
) -> tuple[Tensor, Tensor]:
    scores = process_logits(logits, protocol)
    if protocol.temperature != 0:
        scores = scores + gumbel(keys, noise_ids)
    best = scores.max(-1)
    # The maximum of a row that contains a NaN is NaN, so this checks every token.
    return best.indices, best.values.isfinite()
