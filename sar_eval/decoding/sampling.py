"""From logits to the next visual token: guidance, temperature, top-k, top-p, min-p, Gumbel noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sar_eval.decoding.guidance import apply_guidance
from sar_eval.decoding.noise import gumbel
from sar_eval.families.image_plan import guidance_weights
from sar_eval.types import DrawProtocol

Weights = Sequence[float] | Tensor  # of guidance, as `apply_guidance` takes them
CHUNK_SCORES = 2**18  # scores sampled at once on the CPU: 1 MB a tensor (`benchmarks/speed/sampling.py`)


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


def apply_min_p(scores: Tensor, min_p: float) -> Tensor:
    """Set `[B, V]` scores of tokens less probable than `min_p` times the likeliest one to -inf.

    Min-p sampling (Nguyen et al., arXiv 2407.01082). With p the softmax of the scores, p >= min_p * max p
    is score >= max score + log min_p. It comes after top-k and top-p, as in transformers.
    """
    if min_p == 0:
        return scores
    return scores.masked_fill(scores < scores.amax(-1, keepdim=True) + math.log(min_p), -torch.inf)


class Scored(NamedTuple):
    """One sampled token of each of B draws, with its log-probabilities.

    Attributes:
        indices: into the vocabulary, int64 `[B]`.
        finite: whether the scores were finite, boolean `[B]`.
        log_probs: float32 `[B]`, under the distribution that was sampled from.
        conditional: float32 `[B]`, under the prompted branch alone, at the same temperature, without top-k,
            top-p and min-p.
    """

    indices: Tensor
    finite: Tensor
    log_probs: Tensor
    conditional: Tensor


def sample(
    logits: Tensor,
    keys: Tensor,
    noise_ids: Tensor,
    protocol: DrawProtocol,
    weights: Weights | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample one token for each of B draws by the Gumbel-max trick.

    Args:
        logits: `[K * B, V]`, the rows of the K branches one after the other, the prompted one first.
        keys: noise keys int32 `[B, 2]` of this position (see `noise.noise_keys`).
        noise_ids: the ids under which the noise of the V tokens is computed, int32 `[V]`.
        protocol: temperature, top-k, top-p and min-p are used, and guidance where there are no weights.
        weights: of guidance (see `apply_guidance`); None for two branches combined by
            `protocol.guidance`, or one where it is 1.

    Returns:
        Indices into V int64 `[B]`, and whether the scores were finite, boolean `[B]`.
    """
    chunks = [
        _choose(process_logits(rows, protocol, chunk_weights), chunk_keys, noise_ids, protocol)
        for rows, chunk_keys, chunk_weights in _chunks(logits, keys, weights)
    ]
    indices, finite = _joined(chunks)
    return indices, finite


def sample_and_score(
    logits: Tensor,
    keys: Tensor,
    noise_ids: Tensor,
    protocol: DrawProtocol,
    weights: Weights | None = None,
) -> Scored:
    """`sample`, with the log-probabilities of the tokens; at temperature 0, those of temperature 1."""
    chunks: list[tuple[Tensor, ...]] = []
    for rows, chunk_keys, chunk_weights in _chunks(logits, keys, weights):
        scores = process_logits(rows, protocol, chunk_weights)
        indices, finite = _choose(scores, chunk_keys, noise_ids, protocol)
        prompted = rows[: len(indices)].float() / (protocol.temperature or 1)
        log_probs = log_probabilities(scores, indices), log_probabilities(prompted, indices)
        chunks.append((indices, finite, *log_probs))
    return Scored(*_joined(chunks))


def process_logits(logits: Tensor, protocol: DrawProtocol, weights: Weights | None = None) -> Tensor:
    """Apply guidance, temperature, top-k, top-p and min-p; at temperature 0 guidance alone.

    Args:
        logits, weights: as for `sample`.
        protocol: how to sample.

    Returns:
        Scores float32 `[B, V]`: unnormalised log-probabilities of the distribution that is sampled from.
    """
    if weights is None:
        [weights] = guidance_weights(protocol.guidance)
    scores = apply_guidance(logits, weights)
    if protocol.temperature == 0:
        return scores
    scores = apply_top_k_top_p(scores / protocol.temperature, protocol.top_k, protocol.top_p)
    return apply_min_p(scores, protocol.min_p)


def log_probabilities(scores: Tensor, indices: Tensor) -> Tensor:
    """Log-probability float32 `[B]` of one index int64 `[B]` in each row of scores `[B, V]`."""
    return scores.gather(-1, indices[:, None])[:, 0] - scores.logsumexp(-1)


def _chunks(
    logits: Tensor, keys: Tensor, weights: Weights | None
) -> Iterator[tuple[Tensor, Tensor, Weights | None]]:
    """Logits, keys and weights of some draws at a time: on the CPU as many as fit its cache, on a GPU all.

    A draw's sums are over its own row alone, so its token is the same in a chunk of any size.
    """
    number, vocab_size = len(keys), logits.shape[-1]
    if logits.device.type != "cpu" or number * vocab_size <= CHUNK_SCORES:
        yield logits, keys, weights
        return
    size = max(1, CHUNK_SCORES // vocab_size)
    by_branch = logits.unflatten(0, (-1, number))
    for start in range(0, number, size):
        part = slice(start, start + size)
        own = weights[part] if isinstance(weights, Tensor) else weights
        yield by_branch[:, part].flatten(0, 1), keys[part], own


def _joined(chunks: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What was computed chunk by chunk, for all draws."""
    if len(chunks) == 1:
        return chunks[0]
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def _choose(
    scores: Tensor, keys: Tensor, noise_ids: Tensor, protocol: DrawProtocol
) -> tuple[Tensor, Tensor]:
    """The index of the greatest score with noise `[B]`, and whether it is finite."""
    if protocol.temperature != 0:
        scores = scores + gumbel(keys, noise_ids)
    best = scores.max(-1)
    # The maximum of a row that contains a NaN is NaN, so this checks every token.
    return best.indices, best.values.isfinite()
