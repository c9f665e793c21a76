"""Cross-entropy over a large codebook without the scores of all tokens at once.

T tokens, hidden size H, a head of V rows: of SimpleAR, the 64,000 visual codes. The scores `[T, V]` of one
batch of 16 pictures of 1,024 tokens are 4.2 GB in float32, and a plain loss keeps them three times over.
Here the scores of one chunk exist at a time, and the forward pass computes the gradients as well, as Liger
(https://arxiv.org/abs/2410.10989) does: three products with the head, where recomputed chunks take four.

Why not torch's `linear_cross_entropy` with options: older versions that are supported have none, and for
bfloat16 it sums the loss in bfloat16: 2.4 % off over 1,024 tokens (reports/speed/train.md).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

SCORES_PER_CHUNK = 1 << 26  # float32 scores at once, 256 MB: 1,048 tokens of 64,000 codes


def visual_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, scores_per_chunk: int = SCORES_PER_CHUNK
) -> Tensor:
    """Sum the cross-entropy of `softmax(hidden @ head.T)` over the tokens.

    Products are taken in autocast's precision where that is on, else in the precision of `hidden`; the
    softmax, the sum and the gradient of the head are float32. The backward pass can be run once, and has no
    derivative of its own.

    Args:
        hidden: `[T, H]`.
        head: `[V, H]`, rows of the codes alone, on the device of `hidden`.
        targets: integers `[T]` from 0 to V - 1.
        scores_per_chunk: how many scores exist at once, rounded down to whole tokens, at least one.

    Returns:
        A float32 scalar, 0 for no tokens.
    """
    tokens = max(1, scores_per_chunk // len(head))
    return cast("Tensor", _ChunkedLoss.apply(hidden, head, targets, tokens, torch.is_grad_enabled()))


def full_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """The same by its definition, all scores at once; for a head over the whole vocabulary."""
    return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="sum")


class _ChunkedLoss(torch.autograd.Function):
    """The loss, with gradients computed in the forward pass and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, tokens: int, with_gradients: bool
    ) -> Tensor:
        # `needs_input_grad` is true of parameters under `no_grad`, too.
        of_hidden, of_head = (with_gradients and needed for needed in ctx.needs_input_grad[:2])
        hidden_grad = torch.empty_like(hidden) if of_hidden else None
        head_grad = torch.zeros_like(head, dtype=torch.float32) if of_head else None
        dtype = _product_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            loss = _sum_of_chunks(hidden, head.to(dtype), targets, tokens, hidden_grad, head_grad)
        ctx.save_for_backward(hidden_grad, head_grad)
        ctx.head_dtype = head.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_grad, head_grad = ctx.saved_tensors
        if hidden_grad is not None:
            hidden_grad.mul_(scale.to(hidden_grad.dtype))
        if head_grad is not None:
            head_grad = head_grad.mul_(scale).to(ctx.head_dtype)
        return hidden_grad, head_grad, None, None, None


def _sum_of_chunks(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    tokens: int,
    hidden_grad: Tensor | None,
    head_grad: Tensor | None,
) -> Tensor:
    """The loss, taken `tokens` at a time in the precision of `head`; gradients are written where wanted."""
    loss = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(hidden), tokens):
        part = slice(start, start + tokens)
        rows, codes = hidden[part].to(head.dtype), targets[part, None]
        log_probs = F.log_softmax(F.linear(rows, head), -1, dtype=torch.float32)
        loss -= log_probs.gather(1, codes).sum()
        if hidden_grad is None and head_grad is None:
            continue
        score_grad = _score_gradient(log_probs, codes).to(head.dtype)
        if hidden_grad is not None:
            hidden_grad[part] = score_grad @ head
        if head_grad is not None:
            head_grad += score_grad.T @ rows
    return loss


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """Precision of a matrix product of `hidden`."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _score_gradient(log_probs: Tensor, codes: Tensor) -> Tensor:
    """Gradient for the scores: probabilities, minus one at the code; in the memory of `log_probs`."""
    probs = log_probs.exp_()
    return probs.scatter_add_(1, codes, probs.new_full(codes.shape, -1.0))
