"""The policy that draws, as a function of its weights: log-probabilities of guided sampling.

A picture of the guided policy comes from two branches. With h+ and h- the last hidden states of the
prompted and the negative branch, W the visual rows of the head, s the guidance and T the temperature,

    scores = (h- + s (h+ - h-)) W^T / T          log p(a) = scores[a] - logsumexp(scores)

The head is linear, so the hidden states are guided and multiplied once. The gradient reaches the prompted
branch with the weight s and the negative one with -(s - 1), and rounding of logits would be amplified by
sqrt(s^2 + (s - 1)^2): products with the head are float32 whatever the rest is (docs/rl.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sar_eval.decoding.sampling import apply_min_p, apply_top_k_top_p
from sar_eval.errors import BadInput
from sar_eval.types import DrawProtocol

MODES = ("guided", "detached", "conditional", "unguided")
SCORES_PER_CHUNK = 1 << 24  # float32 scores computed at once, 64 MB: 262 places of 64,000 codes

Prompts = Sequence[Sequence[Sequence[int]]]  # token ids of each picture's branches, the prompted one first


class TokenScores(NamedTuple):
    """What the policy says of sampled tokens.

    Attributes:
        log_probs: float32 `[B, N]`, with gradients.
        entropy: float32 `[B, N]`, nats of the whole distribution at each token.
    """

    log_probs: Tensor
    entropy: Tensor


@dataclass(frozen=True, slots=True)
class _Sampling:
    """What of the protocol the trainer repeats."""

    guidance: float
    temperature: float
    top_k: int
    top_p: float
    min_p: float


class GuidedPolicy(nn.Module):
    """A decoder with the distribution that its pictures are sampled from.

    Modes, of which only the first follows the gradient of what was sampled:

    - `guided`: exact, through both branches.
    - `detached`: the same log-probabilities; the logits of the negative branch count as constants. A third
      less work, and its activations are not kept.
    - `conditional`: log-probabilities of the prompted branch alone, of pictures that were drawn with
      guidance. Biased; what T2I-R1 and others do.
    - `unguided`: as `conditional`, for pictures drawn without guidance, where it is exact.
    """

    def __init__(self, model: Any, visual_ids: range, protocol: DrawProtocol, mode: str = "guided") -> None:
        """Use a transformers decoder (`Qwen2ForCausalLM`).

        Args:
            model: with `.model`, which gives `last_hidden_state`, and `.lm_head` without a bias.
            visual_ids: ids of the visual tokens, the rows of the head that count.
            protocol: guidance, temperature, top-k, top-p and min-p that pictures are drawn with.
            mode: one of `MODES`.

        Raises:
            BadInput: a mode that there is not, or a protocol that no gradient follows.
        """
        super().__init__()
        check_protocol(protocol, mode)
        self.model, self.visual_ids, self.mode = model, visual_ids, mode
        narrow = mode != "conditional"  # what guidance kept, the prompted branch alone may not have kept
        self.sampling = _Sampling(
            protocol.guidance if mode in ("guided", "detached") else 1.0,
            protocol.temperature,
            protocol.top_k if narrow else 0,
            protocol.top_p if narrow else 1.0,
            protocol.min_p if narrow else 0.0,
        )

    def forward(self, prompts: Prompts, codes: Tensor, entropy: bool = True) -> TokenScores:
        """Log-probabilities of sampled pictures.

        Args:
            prompts: for each of B pictures the token ids of its prompted branch and, with guidance, of its
                negative branch, as the engine drew it.
            codes: visual codes int64 `[B, N]`.
            entropy: whether to compute it (else zeros).
        """
        prompted = self._hidden(prompts, 0, codes)
        negative = None
        if self.sampling.guidance != 1:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode == "guided"):
                negative = self._hidden(prompts, 1, codes)
        flat = [torch.zeros(0) if part is None else part.flatten(0, 1) for part in (prompted, negative)]
        log_probs, entropies = self._scored(flat[0], None if negative is None else flat[1], codes, entropy)
        return TokenScores(log_probs.view(codes.shape), entropies.view(codes.shape))

    def _hidden(self, prompts: Prompts, branch: int, codes: Tensor) -> Tensor:
        """Hidden states `[B, N, hidden]` at the places that predict the N tokens."""
        rows = [list(picture[branch]) for picture in prompts]
        number, tokens = len(rows), codes.shape[1]
        length = max(map(len, rows)) + tokens - 1
        # Padded on the right, where causal attention needs no mask.
        ids = torch.zeros((number, length), dtype=torch.int64, device=codes.device)
        starts = torch.tensor([len(row) - 1 for row in rows], device=codes.device)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row, device=codes.device)
            ids[index, len(row) : len(row) + tokens - 1] = codes[index, :-1] + self.visual_ids.start
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        places = starts[:, None] + torch.arange(tokens, device=codes.device)
        found: Tensor = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        return found

    def _scored(
        self, prompted: Tensor, negative: Tensor | None, codes: Tensor, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies `[B * N]`; the backward pass recomputes the scores of a chunk."""
        head = self.model.lm_head.weight[self.visual_ids.start : self.visual_ids.stop]
        places = max(1, SCORES_PER_CHUNK // len(head))
        chunks = zip(
            prompted.split(places),
            [None] * (-(-len(prompted) // places)) if negative is None else negative.split(places),
            codes.flatten().split(places),
            strict=True,
        )
        found = [
            checkpoint(self._score_chunk, *chunk, head, entropy, use_reentrant=False)
            if torch.is_grad_enabled()
            else self._score_chunk(*chunk, head, entropy)
            for chunk in chunks
        ]
        return torch.cat([log_probs for log_probs, _ in found]), torch.cat([each for _, each in found])

    def _score_chunk(
        self, prompted: Tensor, negative: Tensor | None, codes: Tensor, head: Tensor, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies `[M]` of M places, float32."""
        with torch.autocast(prompted.device.type, enabled=False):
            scores = (
                self._guided_scores(prompted.float(), negative, head.float()) / self.sampling.temperature
            )
            scores = self._narrowed(scores, codes)
            normaliser = scores.logsumexp(-1)
            log_probs = scores.gather(-1, codes[:, None])[:, 0] - normaliser
            return log_probs, _entropy(scores, normaliser) if entropy else torch.zeros_like(log_probs)

    def _guided_scores(self, prompted: Tensor, negative: Tensor | None, head: Tensor) -> Tensor:
        if negative is None:
            return prompted @ head.T
        scale = self.sampling.guidance
        if self.mode == "detached":  # constants: no gradient to the head either
            return (scale * prompted) @ head.T + ((1 - scale) * negative.float()) @ head.detach().T
        return torch.lerp(negative.float(), prompted, scale) @ head.T

    def _narrowed(self, scores: Tensor, codes: Tensor) -> Tensor:
        """Top-k, top-p and min-p as the engine applies them; the sampled token always stays.

        After an update it may have left the set; it then keeps its score, so that the ratio is small
        instead of zero and the gradient finite.
        """
        sampling = self.sampling
        if not sampling.top_k and sampling.top_p == 1 and not sampling.min_p:
            return scores
        with torch.no_grad():
            narrowed = apply_top_k_top_p(scores, sampling.top_k, sampling.top_p)
            kept = apply_min_p(narrowed, sampling.min_p).isfinite()
            kept.scatter_(1, codes[:, None], value=True)
        return scores if bool(kept.all()) else scores.masked_fill(~kept, -torch.inf)


def _entropy(scores: Tensor, normaliser: Tensor) -> Tensor:
    """Entropy `[M]` in nats of softmax(scores) `[M, V]`; what was cut off has no share in it."""
    log_probs = scores - normaliser[:, None]
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)


def check_protocol(protocol: DrawProtocol, mode: str) -> None:
    """Refuse what has no gradient, or another one than is said.

    Raises:
        BadInput: an unknown mode, temperature 0, top-k 1, text tokens, or guidance in the mode `unguided`.
    """
    if mode not in MODES:
        raise BadInput(f"policy is {mode!r}: {', '.join(MODES)}")
    if protocol.temperature == 0:
        raise BadInput(
            "protocol.temperature is 0: without chance there is no policy gradient; take 0.5 or 1"
        )
    if protocol.top_k == 1:
        raise BadInput("protocol.top_k is 1: one token has no other to be better than; take 0 for all")
    if protocol.full_vocab:
        raise BadInput(
            "protocol.full_vocab samples text tokens, which are no part of a picture: switch it off"
        )
    if mode == "unguided" and protocol.guidance != 1:
        raise BadInput(
            f"policy 'unguided' with protocol.guidance {protocol.guidance:g}: set guidance = 1 for the "
            "rollouts, or take policy 'guided'"
        )
