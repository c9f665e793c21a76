"""Lossless speculative decoding: Jacobi decoding with shared Gumbel noise, for one image or a few.

A window of guessed tokens goes through the decoder in one forward, and every position of it is sampled
with the noise of its own (seed, position, token). The first sample is conditioned on true tokens only, so
it is the one that decoding token by token samples; each guess that equals its sample makes the next sample
true as well. All true samples are accepted, and the others become the next guesses: because the noise of a
position is fixed, they converge as their context does.

Sources: speculative Jacobi decoding (arXiv 2410.01699), coupling by shared noise (arXiv 2510.24211).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.decoding.guidance import weight_table
from sar_eval.decoding.loop import DecodeOutput, Vocabulary, prefill
from sar_eval.decoding.sampling import sample
from sar_eval.decoding.transformer import Decoder
from sar_eval.families.image_plan import ImagePlan
from sar_eval.types import DrawProtocol


class SpeculativeDecoder:
    """Decodes one batch of B draws, which advance by different numbers of tokens."""

    def __init__(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        protocol: DrawProtocol,
        plan: ImagePlan,
        prompts: Sequence[Sequence[int]],
        keys: Tensor,
        window: int,
    ) -> None:
        """Prefill the prompts and sample the first token.

        Args:
            decoder: the weights.
            vocabulary: the tokens to sample from.
            protocol: temperature, top-k and top-p are used.
            plan: of the images, of N tokens each, and of their guidance.
            prompts: token ids of B prompted rows, then of the B rows of each other branch.
            keys: noise keys int32 `[N, B, 2]`.
            window: positions sampled by one forward.
        """
        self.decoder, self.vocabulary, self.protocol = decoder, vocabulary, protocol
        self.plan, self.image_tokens, self.batch_size = plan, plan.codes, keys.shape[1]
        self.window = min(window, plan.width)  # a guess is the token above, which must be there
        # Two windows of padding past the last token; what is sampled there is discarded.
        self.keys = F.pad(keys, (0, 0, 0, 0, 0, 2 * self.window))
        device, batch_size = keys.device, self.batch_size
        weights = weight_table(plan.weights, device)
        self.weights = None if weights is None else F.pad(weights, (0, 0, 0, 2 * self.window))
        self.offsets = torch.arange(self.window, device=device)
        self.draw_indices = torch.arange(batch_size, device=device)[:, None]
        padded = self.image_tokens + 2 * self.window
        self.sampled_ids = torch.zeros((batch_size, padded), dtype=torch.int64, device=device)
        slots = max(map(len, prompts)) + self.image_tokens + self.window
        self.cache = decoder.new_cache(len(prompts), slots)
        self.accepted = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.forwards = torch.zeros_like(self.accepted)
        self.failed_at = torch.full((batch_size,), -1, device=device)
        hidden, self.lengths = prefill(decoder, prompts, self.cache, device)
        first = torch.zeros((batch_size, 1), dtype=torch.int64, device=device)
        ids, finite = self._sample(hidden, first)
        self.sampled_ids[:, : self.window + 1] = ids
        self._accept(torch.ones_like(self.accepted), finite)

    def run(self) -> DecodeOutput:
        """Decode until all draws have their tokens."""
        while bool((self.accepted < self.image_tokens).any()):
            self._advance()
        codes, out_of_range = self.vocabulary.to_codes(self.sampled_ids[:, : self.image_tokens])
        return DecodeOutput(codes, self.failed_at.cpu(), out_of_range, self.forwards.tolist())

    def _advance(self) -> None:
        """One forward over every draw's window."""
        self.forwards += self.accepted < self.image_tokens
        # A finished draw computes a window past its end, which is discarded.
        indices = self.accepted.clamp(max=self.image_tokens)[:, None] + self.offsets
        inputs = self.sampled_ids.gather(1, indices - 1)
        branches = self.plan.branches
        positions = self.lengths + (indices - 1).repeat(branches, 1)
        length = int(positions.max()) + 1
        hidden = self.decoder.forward(inputs.repeat(branches, 1), positions, self.cache, length)
        ids, finite = self._sample(hidden.flatten(0, 1), indices)
        matches = (ids == self.sampled_ids.gather(1, indices))[:, :-1]
        number = 1 + matches.long().cumprod(1).sum(1)
        self.sampled_ids.scatter_(1, indices, ids)
        self._guess(indices + self.window)
        self._accept(torch.minimum(number, self.image_tokens - self.accepted), finite)

    def _sample(self, hidden: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Ids of the tokens at `indices` `[B, W]` of the images, and whether their scores were finite.

        Args:
            hidden: `[K * B * W, hidden]`, branch by branch.
            indices: in which place of its image a token is.
        """
        keys = self.keys[indices, self.draw_indices].flatten(0, 1)
        table = self.weights
        weights = self.plan.weights[0] if table is None else table[indices].flatten(0, 1)
        arguments = (self.vocabulary.noise_ids, self.protocol, weights)
        columns, finite = sample(self.vocabulary.head(hidden), keys, *arguments)
        return columns.view_as(indices) + self.vocabulary.first_id, finite.view_as(indices)

    def _guess(self, indices: Tensor) -> None:
        """Set first guesses: the token above, often the same in images; in the first row the last one."""
        previous = indices[:, :1] - 1
        source = torch.where(indices >= self.plan.width, indices - self.plan.width, previous)
        self.sampled_ids.scatter_(1, indices, self.sampled_ids.gather(1, source))

    def _accept(self, number: Tensor, finite: Tensor) -> None:
        """Accept the first `number` `[B]` samples of each window; `finite` is boolean `[B, W]`."""
        offsets = self.offsets[: finite.shape[1]]
        failed = ~finite & (offsets < number[:, None])
        first = self.accepted + failed.int().argmax(1)
        self.failed_at = torch.where(failed.any(1) & (self.failed_at < 0), first, self.failed_at)
        self.accepted = self.accepted + number
