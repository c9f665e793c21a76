"""The sampling loop: prefill the prompts, then one forward a visual token for the whole batch.

The state of a batch lives in tensors that keep their place, so that a step is a function without
arguments from the host and without an answer to it: on a GPU it is captured as CUDA graphs and
replayed, on the CPU it is simply called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sar_eval.decoding.linear import Linear
from sar_eval.decoding.sampling import sample
from sar_eval.decoding.transformer import Cache, Decoder
from sar_eval.types import DrawProtocol

GRAPH_SLOTS = 256  # a captured step looks at a multiple of so many slots


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the loop gives for B draws of N tokens, on the CPU.

    Attributes:
        codes: visual codes int64 `[B, N]`, raster order.
        failed_at: int64 `[B]`, the first token whose scores were no numbers; -1 for none.
        outside: int64 `[B]`, tokens drawn outside the visual range (`full_vocab`) and set to code 0.
        steps: forwards after the prompt, a list of B.
        errors: why a draw has no tokens, a list of B with "" where it has; empty where all have.
    """

    codes: Tensor
    failed_at: Tensor
    outside: Tensor
    steps: list[int]
    errors: Sequence[str] = ()


class Vocabulary:
    """The rows of the head that are sampled from, and what the noise calls them."""

    def __init__(self, decoder: Decoder, visual: range, full: bool) -> None:
        """`visual`: ids of the visual tokens; `full` samples from text tokens too."""
        first, end = (0, decoder.shape.vocabulary) if full else (visual.start, visual.stop)
        self.visual, self.first = visual, first
        self.head = Linear(decoder.head[first:end])
        # A visual token has the same noise with and without the text tokens beside it.
        places = torch.arange(first, end, device=decoder.head.device)
        self.ids = (places - visual.start).to(torch.int32)

    def codes(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of token ids `[B, N]`, clamped as the reference does, and how many were outside `[B]`."""
        codes = tokens - self.visual.start
        inside = codes.clamp(0, len(self.visual) - 1)
        return inside.cpu(), (codes != inside).sum(1).cpu()


def prefill(
    decoder: Decoder, prompts: Sequence[Sequence[int]], cache: Cache, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Put prompts into a cache, each different one computed once.

    Args:
        decoder: the weights.
        prompts: token ids of R rows.
        cache: of R rows, long enough.
        device: of the cache.

    Returns:
        Hidden states `[R, hidden]` of the prompts' last tokens, and their lengths int64 `[R, 1]`.
    """
    different = list(dict.fromkeys(map(tuple, prompts)))
    place = {prompt: number for number, prompt in enumerate(different)}
    length = max(map(len, different))
    # What follows a shorter prompt here lies in slots that its image overwrites before it sees them.
    tokens = torch.tensor([[*prompt, *[0] * (length - len(prompt))] for prompt in different], device=device)
    positions = torch.arange(length, device=device).expand(len(different), -1)
    small = decoder.new_cache(len(different), length)
    hidden = decoder.forward(tokens, positions, small, length)
    ends = torch.tensor([len(prompt) for prompt in different], device=device)
    last = hidden[torch.arange(len(different), device=device), ends - 1]
    rows = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=device)
    cache.keys[:, :, :, :length] = small.keys[:, rows]
    cache.values[:, :, :, :length] = small.values[:, rows]
    return last[rows], ends[rows, None]


class BatchDecoder:
    """Decodes batches of one size; its buffers and captured graphs serve one batch after another."""

    def __init__(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        protocol: DrawProtocol,
        draws: int,
        room: int,
        steps: int,
    ) -> None:
        """Make room.

        Args:
            decoder: the weights.
            vocabulary: what is sampled from.
            protocol: guidance, temperature, top-k and top-p are used.
            draws: B; with guidance there are 2B rows.
            room: tokens of the longest prompt.
            steps: N, tokens of an image.
        """
        self.decoder, self.vocabulary, self.protocol = decoder, vocabulary, protocol
        self.draws, self.room, self.steps = draws, room, steps
        self.branches = 1 if protocol.guidance == 1 else 2
        device = decoder.norm.device
        self.cache = decoder.new_cache(draws * self.branches, room + steps - 1)
        self.keys = torch.zeros((steps, draws, 2), dtype=torch.int32, device=device)
        self.step, self.failed_at = (torch.zeros(n, dtype=torch.int64, device=device) for n in (1, draws))
        self.drawn = torch.zeros((draws, steps), dtype=torch.int64, device=device)
        rows = (draws * self.branches, 1)
        self.tokens, self.positions = (torch.zeros(rows, dtype=torch.int64, device=device) for _ in "tp")
        self.sample = torch.compile(sample, dynamic=False) if decoder.compiled else sample
        graphed = device.type == "cuda"
        self.advance: Callable[[int], None] = GraphedStep(self._step) if graphed else self._step

    @property
    def cache_bytes(self) -> int:
        """What the caches hold on to."""
        return self.cache.keys.nbytes + self.cache.values.nbytes

    def fits(self, draws: int, room: int) -> bool:
        """Whether it can serve such a batch."""
        return draws == self.draws and room <= self.room

    def run(self, prompts: Sequence[Sequence[int]], keys: Tensor) -> Decoded:
        """Decode B draws.

        Args:
            prompts: token ids of B prompted rows, then (with guidance) of their B negative rows.
            keys: noise keys int32 `[N, B, 2]`.
        """
        hidden, lengths = prefill(self.decoder, prompts, self.cache, self.keys.device)
        self.keys.copy_(keys)
        self.step.zero_()
        self.failed_at.fill_(-1)
        self.positions.copy_(lengths - 1)
        self._choose(hidden)
        longest = max(map(len, prompts))
        for step in range(1, self.steps):
            self.advance(self._length(longest + step))
        codes, outside = self.vocabulary.codes(self.drawn)
        return Decoded(codes, self.failed_at.cpu(), outside, [self.steps - 1] * self.draws)

    def _length(self, filled: int) -> int:
        """Slots to look at: all that are filled, on a GPU rounded up so that few graphs serve all steps."""
        if self.keys.device.type == "cpu":
            return filled
        return min(-(-filled // GRAPH_SLOTS) * GRAPH_SLOTS, self.room + self.steps - 1)

    def _step(self, length: int) -> None:
        """One token more for every draw. No value goes to the host."""
        hidden = self.decoder.forward(self.tokens, self.positions, self.cache, length)
        self._choose(hidden[:, -1])

    def _choose(self, hidden: Tensor) -> None:
        logits = self.vocabulary.head(hidden)
        keys = self.keys.index_select(0, self.step)[0]
        places, sound = self.sample(logits, keys, self.vocabulary.ids, self.protocol)
        tokens = places + self.vocabulary.first
        self.drawn.index_copy_(1, self.step, tokens[:, None])
        first_fault = ~sound & (self.failed_at < 0)
        self.failed_at.copy_(torch.where(first_fault, self.step, self.failed_at))
        self.tokens.copy_(tokens.repeat(self.branches)[:, None])
        self.positions.add_(1)
        self.step.add_(1)


class GraphedStep:
    """A step as CUDA graphs, one for each length, captured when it is first asked for."""

    def __init__(self, step: Callable[[int], None]) -> None:
        self.step, self.graphs = step, dict[int, torch.cuda.CUDAGraph]()
        self.warm = False

    def __call__(self, length: int) -> None:
        """Do the step."""
        if not self.warm:  # the first one loads kernels, which must not happen while a graph is captured
            self.step(length)
            self.warm = True
            return
        if length not in self.graphs:
            self.graphs[length] = self._capture(length)
        self.graphs[length].replay()

    def _capture(self, length: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values())).pool() if self.graphs else None
        # Another thread makes images meanwhile; what it does must not spoil the capture.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self.step(length)
        return graph
