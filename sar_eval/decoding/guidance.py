"""Classifier-free guidance (CFG): how the logits of the branches of a draw are combined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def apply_guidance(logits: Tensor, weights: Sequence[float] | Tensor) -> Tensor:
    """Combine the logits of the K branches of each draw.

        scores = last + sum over k < K of weight_k * (logits_k - last)

    With two branches and one weight this is classifier-free guidance (Ho and Salimans, arXiv 2207.12598,
    where the weight is 1 + w) on the log-probabilities of the next token, as SimpleAR's generation script
    applies it. Three branches are that of InstructPix2Pix (Brooks et al., arXiv 2211.09800, equation 3)
    with the branches in the order text and image, image, none: s_T and s_I - s_T are their weights. Here it
    is applied to the logits themselves: log-softmax would subtract one constant from each row, so the
    result differs by one constant per draw, which changes neither the softmax of the scores nor their
    order.

    Args:
        logits: `[K * B, V]`, the first branch of B draws, then the second of the same draws, and so on.
        weights: K - 1 numbers; or `[B, K - 1]`, where each draw has its own.

    Returns:
        Scores float32 `[B, V]`: log-probabilities of the guided distribution up to a constant per row.
    """
    by_branch: list[float | Tensor]
    by_branch = [*weights[..., None].unbind(1)] if isinstance(weights, Tensor) else [*weights]
    *branches, last = logits.float().chunk(len(by_branch) + 1)
    if len(branches) == 1:
        return torch.lerp(last, branches[0], by_branch[0])
    scores = last
    for weight, branch in zip(by_branch, branches, strict=True):
        scores = scores + weight * (branch - last)
    return scores


def weight_table(weights: Sequence[Sequence[float]], device: torch.device) -> Tensor | None:
    """Weights float32 `[N, K - 1]` of every token; None where all tokens have the same.

    The same weights are numbers in the program, as they were before there was a table: `torch.lerp` with a
    number and with a tensor may round differently.
    """
    return None if len(weights) == 1 else torch.tensor(weights, dtype=torch.float32, device=device)
