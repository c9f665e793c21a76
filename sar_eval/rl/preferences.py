"""Pairs of a better and a worse picture of one prompt, and the loss of preferring the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from sar_eval.rl.judged_draws import JudgedDraw, JudgedRun, by_prompt

PreferenceLossName = Literal["dpo", "ipo"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures of one prompt; the chosen one has the better score."""

    chosen: JudgedDraw
    rejected: JudgedDraw


def preference_pairs(runs: Sequence[JudgedRun], per_prompt: int = 1, min_margin: float = 0.0) -> list[Pair]:
    """The best with the worst of each prompt, the second best with the second worst, and so on.

    Each picture is in one pair at most, and equal scores go by the order of the runs and of their draws.
    Each picture keeps its own two texts: where the protocol draws a prefix for each, the two of a pair may
    differ in it, and the partition function that DPO cancels is then the same only roughly.

    Args:
        runs: of one judge.
        per_prompt: pairs of a prompt at most.
        min_margin: least difference of the scores; it must be above 0 in any case.
    """
    found = []
    for draws in by_prompt(runs).values():
        ranked = sorted((d for d in draws if d.score is not None), key=lambda d: -(d.score or 0.0))
        for chosen, rejected in list(zip(ranked, reversed(ranked), strict=True))[: len(ranked) // 2][
            :per_prompt
        ]:
            margin = (chosen.score or 0.0) - (rejected.score or 0.0)
            if margin > 0 and margin >= min_margin:
                found.append(Pair(chosen, rejected))
    return found


class Preference(NamedTuple):
    """What a batch of pairs gives, each `[B]`.

    Attributes:
        loss: to be averaged.
        chosen, rejected: implicit rewards beta * log(policy / reference) of the pictures, without gradient.
    """

    loss: Tensor
    chosen: Tensor
    rejected: Tensor


def preference_loss(
    log_ratios: Tensor, tokens: int, beta: float, loss: PreferenceLossName = "dpo"
) -> Preference:
    """Loss of pairs of pictures.

    With h = log(policy / reference) of the chosen picture less that of the rejected one,

        dpo: -log sigmoid(beta h)              Rafailov et al. 2023, arXiv 2305.18290, equation 7
        ipo: (h / tokens - 1 / (2 beta))^2     Azar et al. 2023, arXiv 2310.12036, as TRL has it

    Both equal TRL 1.16's `sigmoid` and `ipo`. All pictures have equally many tokens, so a DPO that divides
    by the length (`sigmoid_norm`) is this one with beta / tokens.

    Args:
        log_ratios: float32 `[2, B]`, sums over a picture's tokens of log policy - log reference; the chosen
            pictures first.
        tokens: of a picture.
        beta: how dear it is to leave the reference.
        loss: one of the two.
    """
    chosen, rejected = log_ratios
    gap = chosen - rejected
    losses = -F.logsigmoid(beta * gap) if loss == "dpo" else (gap / tokens - 1 / (2 * beta)).square()
    rewards = beta * log_ratios.detach()
    return Preference(losses, rewards[0], rewards[1])
