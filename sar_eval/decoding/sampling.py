"""From logits to the next visual token: guidance, temperature, top-k, top-p, shared noise."""

from __future__ import annotations

import torch
from torch import Tensor

from sar_eval.decoding.noise import gumbel
from sar_eval.types import DrawProtocol


def guide(logits: Tensor, guidance: float) -> Tensor:
    """Combine `[2B, V]` logits (B prompted rows, then their B negative rows) to scores float32 `[B, V]`.

    `log p = log p_neg + s (log p_pos - log p_neg)`: classifier-free guidance (arXiv 2207.12598) as
    SimpleAR's generation script applies it, up to a constant a row: what log-softmax would take from
    a row's logits is the same for all its tokens, and no token is chosen by it.
    """
    positive, negative = logits.float().chunk(2)
    return torch.lerp(negative, positive, guidance)


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


def sample(logits: Tensor, keys: Tensor, ids: Tensor, protocol: DrawProtocol) -> tuple[Tensor, Tensor]:
    """Draw one token for each of B draws by the Gumbel-max trick.

    Args:
        logits: `[2B, V]` (prompted rows, then negative rows), or `[B, V]` where guidance is 1.
        keys: noise keys int32 `[B, 2]` of this position (see `noise.noise_keys`).
        ids: what the noise knows the V tokens by, int32 `[V]`.
        protocol: guidance, temperature, top-k and top-p are used.

    Returns:
        Places in V int64 `[B]`, and whether the scores were numbers, boolean `[B]`.
    """
    if logits.device.type != "cpu":
        return _sample(logits, keys, ids, protocol)
    # One draw at a time stays in the processor's cache, and gives it the same sums in any batch.
    drawn = [_sample(logits[i :: len(keys)], keys[i : i + 1], ids, protocol) for i in range(len(keys))]
    return torch.cat([places for places, _ in drawn]), torch.cat([sound for _, sound in drawn])


def policy_scores(logits: Tensor, protocol: DrawProtocol) -> Tensor:
    """Unnormalised log-probabilities float32 `[B, V]` that a token is drawn from.

    Guidance, temperature, top-k and top-p applied; at temperature 0 the scores before temperature.
    `logits` as for `sample`.
    """
    scores = guide(logits, protocol.guidance) if protocol.guidance != 1 else logits.float()
    if protocol.temperature == 0:
        return scores
    return narrow(scores / protocol.temperature, protocol.top_k, protocol.top_p)


def log_probabilities(scores: Tensor, places: Tensor) -> Tensor:
    """Log-probability float32 `[B]` of one place int64 `[B]` in each row of scores `[B, V]`."""
    return scores.gather(-1, places[:, None])[:, 0] - scores.logsumexp(-1)


def _sample(logits: Tensor, keys: Tensor, ids: Tensor, protocol: DrawProtocol) -> tuple[Tensor, Tensor]:
    scores = policy_scores(logits, protocol)
    if protocol.temperature != 0:
        scores = scores + gumbel(keys, ids)
    best = scores.max(-1)
    # The greatest of a row with a NaN in it is NaN, so this looks at every token.
    return best.indices, best.values.isfinite()
