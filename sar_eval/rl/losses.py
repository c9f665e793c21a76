"""The loss of a policy gradient on sampled pictures, token by token, and the control of its entropy.

B pictures of N tokens. Log-probabilities are those of the sampled tokens. Every picture has N tokens, so
TRL's `grpo`, `bnpo`, `dr_grpo` and `dapo`, which differ in how they divide by lengths, are one loss here:
"clip". The loss is left unreduced: the loop divides the sum by the count of all ranks' tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.errors import BadInput

LossName = Literal["clip", "cispo"]
Level = Literal["token", "sequence"]
Divergence = Literal["k3", "js", "off"]


@dataclass(frozen=True, slots=True)
class LossOptions:
    """How advantages become a loss.

    Attributes:
        loss: "clip", the surrogate of PPO (https://arxiv.org/abs/1707.06347), or "cispo", which cuts the
            ratio off but never a token's gradient (MiniMax-M1, https://arxiv.org/abs/2506.13585).
        level: whether a token has a ratio of its own, or all of a picture have its geometric mean (GSPO,
            https://arxiv.org/abs/2507.18071).
        clip_low: ratios below 1 - clip_low are cut off (not by "cispo").
        clip_high: ratios above 1 + clip_high are cut off; larger than clip_low is the clip-higher of DAPO
            (https://arxiv.org/abs/2503.14476). For "cispo", TRL's `epsilon_high` is 1 + clip_high.
        kl: estimator of the divergence from the reference (see `divergence`), or "off".
        beta: factor of that divergence.
        importance_cap: upper limit of the weights that correct for the engine's other arithmetic
            (truncated importance sampling, TRL's `token_truncate`).
    """

    loss: LossName = "clip"
    level: Level = "token"
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: Divergence = "k3"
    beta: float = 0.0
    importance_cap: float = 2.0

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            BadInput: an unknown name, or a number that no loss can be made of.
        """
        for name, kinds in (("loss", LossName), ("level", Level), ("kl", Divergence)):
            if (value := getattr(self, name)) not in get_args(kinds):
                raise BadInput(f"{name} is {value!r}: choose one of {', '.join(get_args(kinds))}")
        for name, low, high in (
            ("clip_low", 0.0, 1.0),
            ("clip_high", 0.0, math.inf),
            ("beta", 0.0, math.inf),
            ("importance_cap", 1.0, math.inf),
        ):
            if not low <= (value := getattr(self, name)) <= high or math.isnan(value):
                raise BadInput(f"{name} is {value}: it lies between {low:g} and {high:g}")


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    options: LossOptions,
    reference: Tensor | None = None,
    token_weights: Tensor | None = None,
    engine_log_probs: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of each token.

    It is token weight x importance weight x (clipped ratio x -advantage) + beta x ratio x divergence. The
    ratio of the token makes the mean over the old policy's samples one over the policy's, and so the
    gradient that of the divergence itself, in the first update as well (DeepSeek-V3.2,
    https://arxiv.org/abs/2512.02556; TRL's `use_bias_correction_kl`, which is its default). The estimator
    alone, as in the first GRPO, pulls elsewhere: "k3" to a smaller KL(reference || policy), and "js"
    hardly at all where the reference is small.

    Args:
        log_probs: `[B, N]`, of the policy that is trained, with gradient.
        old_log_probs: `[B, N]`, of the same network when the pictures were drawn; for one update a rollout
            that is `log_probs.detach()`.
        advantages: `[B]`.
        options: which loss.
        reference: `[B, N]`, of the reference network; without it there is no divergence.
        token_weights: `[B, N]`, of mean 1 in each picture (see `advantages.contrast_weights`).
        engine_log_probs: `[B, N]`, of the engine that drew the pictures. NaN is not corrected for.
        mask: boolean `[B, N]`, the tokens that count; whatever stands elsewhere, NaN as well, is ignored.

    Returns:
        The loss `[B, N]`, 0 outside the mask, and without gradient `ratio`, `clipped` (1 where clipping
        stops or cuts the gradient, else 0) and `kl` (ratio x divergence), each `[B, N]`.
    """
    mask = torch.ones_like(log_probs, dtype=torch.bool) if mask is None else mask.bool()
    # Before any arithmetic: a masked NaN would come back in the gradient as 0 x NaN.
    log_probs = log_probs.where(mask, 0.0)
    log_ratio = (log_probs - old_log_probs.detach()).where(mask, 0.0)
    ratio = _ratio(log_ratio, mask, options.level)
    loss, clipped = _surrogate(log_probs, ratio, advantages[:, None], options)
    if token_weights is not None:
        loss = loss * token_weights.where(mask, 0.0)
    if engine_log_probs is not None:
        loss = loss * importance_weights(old_log_probs, engine_log_probs, options.importance_cap)
    kl = torch.zeros_like(log_probs)
    if reference is not None and options.kl != "off":
        kl = log_ratio.exp() * divergence(log_probs, reference.detach().where(mask, 0.0), options.kl)
        loss = loss + options.beta * kl
    diagnostics = {"ratio": ratio, "clipped": clipped.to(ratio.dtype), "kl": kl}
    return loss.where(mask, 0.0), {
        name: value.detach().where(mask, 0.0) for name, value in diagnostics.items()
    }


def importance_weights(trainer: Tensor, engine: Tensor, cap: float) -> Tensor:
    """Weight of each token that corrects for an engine that rounds otherwise than the trainer.

    The ratio of the two probabilities, cut off at `cap` (as rho in V-trace,
    https://arxiv.org/abs/1802.01561). Token by token: over the thousand tokens of a picture small
    differences add up to ratios of any size, and weights of whole pictures would be cut off or near 0.

    Args:
        trainer: log-probabilities `[B, N]`.
        engine: the same of the engine.
        cap: at least 1.

    Returns:
        `[B, N]` without gradient; 1 where a log-probability is NaN.
    """
    return (trainer - engine).detach().nan_to_num(nan=0.0).exp().clamp(max=cap)


def divergence(log_probs: Tensor, reference: Tensor, kind: Divergence) -> Tensor:
    """Estimate at each sampled token how far the policy p has gone from the reference q, with r = q / p.

    "k3" is r - log r - 1 (http://joschu.net/blog/kl-approx.html), whose mean over p is KL(p || q).

    "js" is f(r) = (r log r - (1 + r) log((1 + r) / 2)) / 2, whose mean over p is the Jensen-Shannon
    divergence, between 0 and log 2 (Lin 1991, doi:10.1109/18.61115): with m = (p + q) / 2,
    p log(p / m) / 2 + q log(q / m) / 2 = p (r log(2 r / (1 + r)) - log((1 + r) / 2)) / 2 = p f(r). The f of
    f-GAN (https://arxiv.org/abs/1606.00709) is twice that.

    Args:
        log_probs: log p `[B, N]`, with gradient.
        reference: log q `[B, N]`.
        kind: the estimator.

    Returns:
        `[B, N]`, at least 0 but for rounding.
    """
    if kind == "off":
        return torch.zeros_like(log_probs)
    log_ratio = reference - log_probs
    if kind == "k3":
        return log_ratio.exp() - log_ratio - 1
    # log(2 r / (1 + r)) and log((1 + r) / 2), without the overflow of 1 + r.
    log_q_over_m = math.log(2) - F.softplus(-log_ratio)
    log_m_over_p = F.softplus(log_ratio) - math.log(2)
    return (log_ratio.exp() * log_q_over_m - log_m_over_p) / 2


def _ratio(log_ratio: Tensor, mask: Tensor, level: Level) -> Tensor:
    """Ratio of new to old probability `[B, N]`; at level "sequence" all tokens of a picture have one."""
    if level == "sequence":
        tokens = mask.sum(-1, keepdim=True).clamp(min=1)
        log_ratio = (log_ratio.sum(-1, keepdim=True) / tokens).expand_as(log_ratio)
    return log_ratio.exp()


def _surrogate(
    log_probs: Tensor, ratio: Tensor, advantages: Tensor, options: LossOptions
) -> tuple[Tensor, Tensor]:
    """The loss `[B, N]` whose gradient is the policy's, and where clipping acts; advantages `[B, 1]`."""
    too_high = (ratio > 1 + options.clip_high) & (advantages > 0)
    if options.loss == "cispo":
        capped = ratio.clamp(max=1 + options.clip_high).detach()
        return -capped * advantages * log_probs, too_high
    clipped_ratio = ratio.clamp(1 - options.clip_low, 1 + options.clip_high)
    too_low = (ratio < 1 - options.clip_low) & (advantages < 0)
    return -torch.minimum(ratio * advantages, clipped_ratio * advantages), too_high | too_low


@dataclass(frozen=True, slots=True)
class EntropyControl:
    """The factor of the entropy that is subtracted from the loss, constant or moved towards a target.

    As TRL's (from Skywork-OR1, https://arxiv.org/abs/2505.22312): after each step the coefficient goes up
    by `rate` if the entropy was at or below the target, else down, and a bonus is not paid above the
    target. A negative `low` allows a penalty there as well (ReasonGen-R1,
    https://arxiv.org/abs/2505.24875); it is not paid below the target.

    Attributes:
        coefficient: now.
        target: entropy to aim at, in nats a token; None keeps the coefficient.
        rate: change of the coefficient a step.
        low, high: its limits.
        entropy: mean of the last step, in nats a token.
    """

    coefficient: float = 0.0
    target: float | None = None
    rate: float = 0.005
    low: float = 0.0
    high: float = 1.0
    entropy: float = math.inf

    @property
    def applied(self) -> float:
        """The coefficient of the next step's loss."""
        if self.target is None:
            return self.coefficient
        if self.entropy <= self.target:
            return max(self.coefficient, 0.0)
        return min(self.coefficient, 0.0)

    def after(self, entropy: float) -> EntropyControl:
        """The control after a step with this mean entropy (of all ranks); NaN changes nothing."""
        if self.target is None or math.isnan(entropy):
            return self
        change = self.rate if entropy <= self.target else -self.rate
        coefficient = min(max(self.coefficient + change, self.low), self.high)
        return replace(self, coefficient=coefficient, entropy=entropy)
