"""Lossless speculative decoding: Jacobi decoding with shared Gumbel noise, for one image or a few.

A window of guessed tokens goes through the decoder in one forward, and every position of it is sampled
with the noise of its own (seed, position, token). The first sample is conditioned on true tokens only, so
it is the one that decoding token by token samples; each guess that equals its sample makes the next sample
true as well. All true samples are accepted, and the others become the next guesses: because the noise of a
position is fixed, they converge as their context does. A forced token (see `ImagePlan`) is a guess that
always holds.

Sources: speculative Jacobi decoding (arXiv 2410.01699), coupling by shared noise (arXiv 2510.24211).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sar_eval.decoding.guidance import weight_table
from sar_eval.decoding.loop import DecodeOutput, Row, Vocabulary, prefill
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
        prompts: Sequence[Row],
        keys: Tensor,
        window: int,
    ) -> None:
        """Prefill the prompts and sample the first token.

        Args:
            decoder: the weights.
            vocabulary: the tokens to sample from.
            protocol: temperature, top-k, top-p and min-p are used.
            plan: of the images, of N codes each, of their forced tokens and their guidance.
            prompts: B prompted rows, then the B rows of each other branch.
            keys: noise keys int32 `[N, B, 2]`.
            window: slots sampled by one forward.
        """
        self.decoder, self.vocabulary, self.protocol = decoder, vocabulary, protocol
        self.plan, self.slots, self.batch_size = plan, plan.slots, keys.shape[1]
        self.window = min(window, plan.width)  # a guess is the token above, which must be there
        device, batch_size = keys.device, self.batch_size
        # Two windows of padding past the last slot; what is sampled there is discarded.
        padded = self.slots + 2 * self.window
        self.keys, self.weights = keys, weight_table(plan.weights, device)
        self.code_indices, self.sources, self.forced_ids = (
            torch.tensor(each, device=device) for each in slot_tables(plan, padded)
        )
        self.offsets = torch.arange(self.window, device=device)
        self.draw_indices = torch.arange(batch_size, device=device)[:, None]
        self.sampled_ids = torch.zeros((batch_size, padded), dtype=torch.int64, device=device)
        slots = max(map(len, prompts)) + self.slots + self.window
        self.cache = decoder.new_cache(len(prompts), slots)
        self.accepted = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.forwards = torch.zeros_like(self.accepted)
        self.failed_at = torch.full((batch_size,), -1, device=device)
        hidden, self.lengths = prefill(decoder, prompts, self.cache, device)
        first = torch.zeros((batch_size, 1), dtype=torch.int64, device=device)
        ids, finite = self._sample(hidden, first)
        forced_ids = self.forced_ids[: self.window + 1]
        self.sampled_ids[:, : self.window + 1] = torch.where(forced_ids < 0, ids, forced_ids)
        self._accept(torch.ones_like(self.accepted), finite)

    def run(self) -> DecodeOutput:
        """Decode until all draws have their tokens."""
        while bool((self.accepted < self.slots).any()):
            self._advance()
        codes, out_of_range = self.vocabulary.to_codes(self.sampled_ids[:, self.plan.code_slots])
        return DecodeOutput(codes, self.failed_at.cpu(), out_of_range, self.forwards.tolist())

    def _advance(self) -> None:
        """One forward over every draw's window."""
        self.forwards += self.accepted < self.slots
        # A finished draw computes a window past its end, which is discarded.
        indices = self.accepted.clamp(max=self.slots)[:, None] + self.offsets
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
        self._accept(torch.minimum(number, self.slots - self.accepted), finite)

    def _sample(self, hidden: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Ids of the tokens in the slots `indices` `[B, W]`, and whether their scores were finite.

        Args:
            hidden: `[K * B * W, hidden]`, branch by branch.
            indices: slots of the images.
        """
        codes = self.code_indices[indices]
        keys = self.keys[codes, self.draw_indices].flatten(0, 1)
        table = self.weights
        weights = self.plan.weights[0] if table is None else table[codes].flatten(0, 1)
        arguments = (self.vocabulary.noise_ids, self.protocol, weights)
        columns, finite = sample(self.vocabulary.head(hidden), keys, *arguments)
        ids, forced_ids = columns.view_as(indices) + self.vocabulary.first_id, self.forced_ids[indices]
        forced = forced_ids >= 0
        return torch.where(forced, forced_ids, ids), finite.view_as(indices) | forced

    def _guess(self, indices: Tensor) -> None:
        """Set first guesses: the token above, often the same in images; in the first row the last one."""
        above, forced_ids = self.sources[indices], self.forced_ids[indices]
        source = torch.where(above >= 0, above, indices[:, :1] - 1)
        guesses = self.sampled_ids.gather(1, source)
        self.sampled_ids.scatter_(1, indices, torch.where(forced_ids >= 0, forced_ids, guesses))

    def _accept(self, number: Tensor, finite: Tensor) -> None:
        """Accept the first `number` `[B]` samples of each window; `finite` is boolean `[B, W]`."""
        offsets = self.offsets[: finite.shape[1]]
        failed = ~finite & (offsets < number[:, None])
        first = self.code_indices[self.accepted + failed.int().argmax(1)]
        self.failed_at = torch.where(failed.any(1) & (self.failed_at < 0), first, self.failed_at)
        self.accepted = self.accepted + number


def slot_tables(plan: ImagePlan, padded: int) -> tuple[list[int], list[int], list[int]]:
    """What the slots of a plan are, the padding behind them included.

    Returns:
        Of each slot the number of its code (of the last one in a slot that has none); the slot above it, or
        -1 in the first row and where nothing is sampled; and the id that is forced there, or -1.
    """
    slot_of_code, slots = plan.code_slots, range(plan.slots)
    code_of_slot = {slot: code for code, slot in enumerate(slot_of_code)}
    above = {
        slot: slot_of_code[code - plan.width] for slot, code in code_of_slot.items() if code >= plan.width
    }
    rest = padded - plan.slots
    return (
        [code_of_slot.get(slot, plan.codes - 1) for slot in slots] + [plan.codes - 1] * rest,
        [above.get(slot, -1) for slot in slots] + [-1] * rest,
        [plan.forced.get(slot, -1) for slot in slots] + [-1] * rest,
    )
