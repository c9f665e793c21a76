"""Lossless speculation: Jacobi decoding with shared Gumbel noise, for one image or a few at a time.

A window of guessed tokens goes through the decoder at once, and every position of it is sampled
with the noise of its own (seed, position, token). The first sample has seen true tokens only, so it
is the one that decoding token by token draws; each guess that equals its sample makes the next
sample true as well. All true ones are kept, and the others are the next guesses: because a
position's noise never changes, they settle as their context does.

Sources: speculative Jacobi decoding (arXiv 2410.01699), coupling by shared noise (arXiv 2510.24211).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sar_eval.decoding.loop import Decoded, Vocabulary, prefill
from sar_eval.decoding.sampling import sample
from sar_eval.decoding.transformer import Decoder
from sar_eval.types import DrawProtocol


class Speculation:
    """The state of B draws, which advance by different numbers of tokens."""

    def __init__(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        protocol: DrawProtocol,
        prompts: Sequence[Sequence[int]],
        keys: Tensor,
        window: int,
    ) -> None:
        """Prefill.

        Args:
            decoder: the weights.
            vocabulary: what is sampled from.
            protocol: guidance, temperature, top-k and top-p are used.
            prompts: token ids of B prompted rows, then (with guidance) of their B negative rows.
            keys: noise keys int32 `[N, B, 2]` of an image of N tokens, a square number.
            window: positions sampled by one forward.
        """
        self.decoder, self.vocabulary, self.protocol = decoder, vocabulary, protocol
        self.steps, self.draws = keys.shape[:2]
        self.side = round(self.steps**0.5)
        self.window = min(window, self.side)
        # Past the last token there is room for a window, whose samples are thrown away.
        self.keys = F.pad(keys, (0, 0, 0, 0, 0, 2 * self.window))
        device = keys.device
        self.offsets = torch.arange(self.window, device=device)
        self.rows = torch.arange(self.draws, device=device)[:, None]
        room = self.steps + 2 * self.window
        self.drawn = torch.zeros((self.draws, room), dtype=torch.int64, device=device)
        self.cache = decoder.new_cache(len(prompts), max(map(len, prompts)) + self.steps + self.window)
        self.done, self.forwards = (torch.zeros(self.draws, dtype=torch.int64, device=device) for _ in "df")
        self.failed_at = torch.full((self.draws,), -1, device=device)
        hidden, self.lengths = prefill(decoder, prompts, self.cache, device)
        tokens, sound = self._sample(hidden, self.keys[0])
        self.drawn[:, : self.window + 1] = tokens[:, None]
        self._keep(torch.ones_like(self.done), sound[:, None])

    def run(self) -> Decoded:
        """Decode until all draws have their tokens."""
        while bool((self.done < self.steps).any()):
            self._advance()
        codes, outside = self.vocabulary.codes(self.drawn[:, : self.steps])
        return Decoded(codes, self.failed_at.cpu(), outside, self.forwards.tolist())

    def _advance(self) -> None:
        """One forward over every draw's window."""
        self.forwards += self.done < self.steps
        # A finished draw computes its last window again, which nobody looks at.
        places = self.done.clamp(max=self.steps)[:, None] + self.offsets
        inputs = self.drawn.gather(1, places - 1)
        branches = len(self.lengths) // self.draws
        positions = self.lengths + (places - 1).repeat(branches, 1)
        length = int(positions.max()) + 1
        hidden = self.decoder.forward(inputs.repeat(branches, 1), positions, self.cache, length)
        keys = self.keys[places, self.rows].flatten(0, 1)
        drawn, sound = self._sample(hidden.flatten(0, 1), keys)
        tokens, sound = drawn.view_as(places), sound.view_as(places)
        right = (tokens == self.drawn.gather(1, places))[:, :-1]
        agreed = 1 + right.long().cumprod(1).sum(1)
        self.drawn.scatter_(1, places, tokens)
        self._guess(places + self.window)
        self._keep(torch.minimum(agreed, self.steps - self.done), sound)

    def _sample(self, hidden: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.vocabulary.head(hidden)
        places, sound = sample(logits, keys, self.vocabulary.ids, self.protocol)
        return places + self.vocabulary.first, sound

    def _guess(self, places: Tensor) -> None:
        """First guesses: the token above, often the same in images; in the first row the last one."""
        before = places[:, :1] - 1
        source = torch.where(places >= self.side, places - self.side, before)
        self.drawn.scatter_(1, places, self.drawn.gather(1, source))

    def _keep(self, number: Tensor, sound: Tensor) -> None:
        """Count `number` `[B]` of the samples as done; `sound` `[B, W]` says which were numbers."""
        offsets = self.offsets[: sound.shape[1]]
        faulty = ~sound & (offsets < number[:, None])
        where = self.done + faulty.int().argmax(1)
        self.failed_at = torch.where(faulty.any(1) & (self.failed_at < 0), where, self.failed_at)
        self.done = self.done + number
