"""The decoding loop: prefill the prompts, then one forward per visual token for the whole batch.

The state of a batch is kept in tensors that are allocated once, so that a step is a function without
arguments from the host and without a result to it: on a GPU it is captured as CUDA graphs and replayed,
on the CPU it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sar_eval.decoding.guidance import weight_table
from sar_eval.decoding.linear import Linear
from sar_eval.decoding.sampling import Weights, sample, sample_and_score
from sar_eval.decoding.transformer import Decoder, KVCache
from sar_eval.families.image_plan import ImagePlan
from sar_eval.types import DrawProtocol

Row = Sequence[int] | Tensor  # what stands before an image: token ids, or embeddings `[length, hidden]`
Step = Callable[..., None]  # of whole numbers: slots to attend to, and forced tokens
GRAPH_LENGTH_MULTIPLE = 256  # a captured step attends to a multiple of so many slots


@dataclass(frozen=True, slots=True)
class DecodeOutput:
    """The visual tokens of B draws of N tokens, on the CPU.

    Attributes:
        codes: visual codes int64 `[B, N]`, raster order.
        failed_at: int64 `[B]`, the first token whose scores were NaN or infinite; -1 for none.
        out_of_range: int64 `[B]`, number of text tokens sampled (`full_vocab`), which become code 0.
        steps: forwards after the prompt, a list of B.
        errors: why a draw has no tokens, a list of B with "" where it has; empty where all have.
        log_probs, conditional: float32 `[B, N]`, as in `sampling.Scored`; None where they were not asked
            for, `conditional` also where the engine does not know it.
    """

    codes: Tensor
    failed_at: Tensor
    out_of_range: Tensor
    steps: list[int]
    errors: Sequence[str] = ()
    log_probs: Tensor | None = None
    conditional: Tensor | None = None


class Vocabulary:
    """The token ids that may be sampled: their rows of the head, and the ids of their noise.

    Attributes:
        visual_ids: ids of the visual tokens.
        first_id: id of the first token that may be sampled; an index into the logits plus this is its id.
        end_id: the id after the last one.
        head: the rows of the head.
        noise_ids: int32 `[V]`, visual code or, for text tokens, a negative number.
    """

    def __init__(self, decoder: Decoder, visual_ids: range, full_vocab: bool) -> None:
        """Select the rows of the head; `full_vocab` also samples from text tokens."""
        whole = (0, decoder.config.vocab_size)
        first, end = whole if full_vocab else (visual_ids.start, visual_ids.stop)
        self.visual_ids, self.first_id, self.end_id = visual_ids, first, end
        self.head = Linear(decoder.head[first:end])
        # Relative to the first visual id, so that a visual token's noise is the same with and without text.
        ids = torch.arange(first, end, device=decoder.head.device)
        self.noise_ids = (ids - visual_ids.start).to(torch.int32)

    def load_weights(self, decoder: Decoder) -> None:
        """Take the rows of the head again, after the decoder has loaded other weights."""
        if self.head.packed:  # else they are the decoder's own memory
            self.head.load(decoder.head[self.first_id : self.end_id])

    def to_codes(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of token ids `[B, N]`, clamped as the reference does, and how many were clamped `[B]`."""
        codes = ids - self.visual_ids.start
        clamped = codes.clamp(0, len(self.visual_ids) - 1)
        return clamped.cpu(), (codes != clamped).sum(1).cpu()


def prefill(
    decoder: Decoder, prompts: Sequence[Row], cache: KVCache, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Compute the prompts' keys and values; equal prompts are computed once.

    Args:
        decoder: the weights.
        prompts: R rows of any length from 1. Embeddings count as equal where they are one tensor.
        cache: filled here; of R rows, with a slot for every prompt token.
        device: of the cache.

    Returns:
        Hidden states `[R, hidden]` of the prompts' last tokens, and their lengths int64 `[R, 1]`.
    """
    keys = [id(prompt) if isinstance(prompt, Tensor) else tuple(prompt) for prompt in prompts]
    unique = dict(zip(keys, prompts, strict=True))
    index_of = {key: index for index, key in enumerate(unique)}
    tokens = _padded(list(unique.values()), decoder)
    length = tokens.shape[1]
    positions = torch.arange(length, device=device).expand(len(unique), -1)
    unique_cache = decoder.new_cache(len(unique), length)
    hidden = decoder.forward(tokens, positions, unique_cache, length)
    lengths = torch.tensor([len(prompt) for prompt in unique.values()], device=device)
    last = hidden[torch.arange(len(unique), device=device), lengths - 1]
    indices = torch.tensor([index_of[key] for key in keys], device=device)
    cache.keys[:, :, :, :length] = unique_cache.keys[:, indices]
    cache.values[:, :, :, :length] = unique_cache.values[:, indices]
    return last[indices], lengths[indices, None]


def _padded(rows: Sequence[Row], decoder: Decoder) -> Tensor:
    """Ids `[R, T]`, or if a row is given as embeddings, the embeddings of all `[R, T, hidden]`.

    Padded on the right: the slots of the padding are overwritten by the image before they are read.
    """
    table = decoder.embedding
    if any(isinstance(row, Tensor) for row in rows):
        embedded = [row.to(table) if isinstance(row, Tensor) else table[list(row)] for row in rows]
        return pad_sequence(embedded, batch_first=True)
    length = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], device=table.device)


class BatchDecoder:
    """Decodes batches of one size; its buffers and captured graphs are reused from batch to batch."""

    def __init__(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        protocol: DrawProtocol,
        batch_size: int,
        max_prompt_length: int,
        plan: ImagePlan,
        scored: bool = False,
    ) -> None:
        """Allocate the buffers.

        Args:
            decoder: the weights.
            vocabulary: the tokens to sample from.
            protocol: temperature, top-k, top-p and min-p are used.
            batch_size: B, in draws; of K branches each, so there are K * B rows.
            max_prompt_length: tokens of the longest prompt.
            plan: of the images, of N codes each, of their forced tokens and their guidance.
            scored: also compute the log-probabilities of the tokens.
        """
        self.decoder, self.vocabulary, self.protocol = decoder, vocabulary, protocol
        self.batch_size, self.max_prompt_length = batch_size, max_prompt_length
        self.plan, self.image_tokens, self.scored = plan, plan.codes, scored
        self.slots = max_prompt_length + plan.slots - 1  # of the cache
        device, rows = decoder.norm.device, batch_size * plan.branches
        self.weights = weight_table(plan.weights, device)

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        self.cache = decoder.new_cache(rows, self.slots)
        self.forced = ForcedTokens(plan, device)
        self.keys = torch.zeros((plan.codes, batch_size, 2), dtype=torch.int32, device=device)
        self.step, self.failed_at = zeros(1), zeros(batch_size)
        self.sampled_ids = zeros(batch_size, plan.codes)
        self.input_ids, self.positions = zeros(rows, 1), zeros(rows, 1)
        # Of the log-probabilities under what was sampled from, and of the conditional ones.
        self.log_probs = torch.zeros((2, batch_size, plan.codes if scored else 0), device=device)
        self.sample, self.sample_and_score = sample, sample_and_score
        if decoder.compiled:
            self.sample = torch.compile(sample, dynamic=False)
            self.sample_and_score = torch.compile(sample_and_score, dynamic=False)
        on_gpu = device.type == "cuda"
        self.advance: Step = CudaGraphStep(self._step, device) if on_gpu else self._step

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV cache."""
        return self.cache.keys.nbytes + self.cache.values.nbytes

    def fits(self, batch_size: int, max_prompt_length: int, scored: bool = False) -> bool:
        """Whether a batch of that size can be decoded with these buffers.

        One without log-probabilities can be decoded with them: a trainer that also evaluates need not
        capture its graphs again.
        """
        enough = max_prompt_length <= self.max_prompt_length and scored <= self.scored
        return batch_size == self.batch_size and enough

    def run(self, prompts: Sequence[Row], keys: Tensor) -> DecodeOutput:
        """Decode B draws.

        Args:
            prompts: B prompted rows, then the B rows of each other branch.
            keys: noise keys int32 `[N, B, 2]`.
        """
        hidden, lengths = prefill(self.decoder, prompts, self.cache, self.keys.device)
        self.keys.copy_(keys)
        self.step.zero_()
        self.failed_at.fill_(-1)
        self.positions.copy_(lengths - 1)
        self._sample_next(hidden)
        longest = max(map(len, prompts))
        for slot, forced in zip(self.plan.code_slots[1:], self.forced.numbers[1:], strict=True):
            self.advance(self._attended_length(longest + slot), forced)
        codes, out_of_range = self.vocabulary.to_codes(self.sampled_ids)
        steps = [self.image_tokens - 1] * self.batch_size
        output = DecodeOutput(codes, self.failed_at.cpu(), out_of_range, steps)
        if not self.scored:
            return output
        log_probs, conditional = self.log_probs.to("cpu", copy=True)
        return replace(output, log_probs=log_probs, conditional=conditional)

    def _attended_length(self, filled: int) -> int:
        """Slots that attention reads: the filled ones, on a GPU rounded up so that few graphs suffice."""
        if self.keys.device.type == "cpu":
            return filled
        rounded = -(-filled // GRAPH_LENGTH_MULTIPLE) * GRAPH_LENGTH_MULTIPLE
        return min(rounded, self.slots)

    def _step(self, length: int, forced: int) -> None:
        """Decode one more code of every draw, without a transfer to the host.

        Args:
            length: slots that attention reads.
            forced: number of forced tokens between the last code and this one. They go through the decoder
                behind the last code, in the same forward.
        """
        input_ids, positions = self.input_ids, self.positions
        if forced:
            ids, offsets = self.forced.before(self.step, forced)
            input_ids = torch.cat([input_ids, ids.expand(len(input_ids), -1)], 1)
            positions = positions + offsets
            self.positions.add_(forced)
        hidden = self.decoder.forward(input_ids, positions, self.cache, length)
        self._sample_next(hidden[:, -1])

    def _sample_next(self, hidden: Tensor) -> None:
        """Sample from hidden states `[rows, hidden]` and update the state of the batch."""
        logits = self.vocabulary.head(hidden)
        keys = self.keys.index_select(0, self.step)[0]
        arguments = (logits, keys, self.vocabulary.noise_ids, self.protocol, self._weights())
        if self.scored:
            indices, finite, *log_probs = self.sample_and_score(*arguments)
            self.log_probs.index_copy_(2, self.step, torch.stack(log_probs)[..., None])
        else:
            indices, finite = self.sample(*arguments)
        ids = indices + self.vocabulary.first_id
        self.sampled_ids.index_copy_(1, self.step, ids[:, None])
        first_failure = ~finite & (self.failed_at < 0)
        self.failed_at.copy_(torch.where(first_failure, self.step, self.failed_at))
        self.input_ids.copy_(ids.repeat(self.plan.branches)[:, None])
        self.positions.add_(1)
        self.step.add_(1)

    def _weights(self) -> Weights:
        """Guidance weights of this step's token."""
        if self.weights is None:
            return self.plan.weights[0]
        # Looked up on the device, so that one captured step serves all tokens.
        return self.weights.index_select(0, self.step).expand(self.batch_size, -1)


class ForcedTokens:
    """The forced tokens of a plan, on the device, where a step finds its own.

    Attributes:
        numbers: how many lie between each code and the one before it.
    """

    def __init__(self, plan: ImagePlan, device: torch.device) -> None:
        slots = plan.code_slots
        self.numbers = [0, *(slot - before - 1 for before, slot in pairwise(slots))]
        self.ids = torch.tensor([plan.forced.get(slot, 0) for slot in range(plan.slots)], device=device)
        self.code_slots = torch.tensor(slots, device=device)
        self.offsets = torch.arange(max(self.numbers) + 1, device=device)

    def before(self, step: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Ids `[number]` of the tokens before the code of `step` `[1]`, and 0, 1 .. number."""
        offsets = self.offsets[: number + 1]
        slots = self.code_slots.index_select(0, step) - number + offsets[:-1]
        return self.ids.index_select(0, slots), offsets


class CudaGraphStep:
    """A step as CUDA graphs, one for each of its arguments, captured when they are first used."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step, self.graphs = step, dict[tuple[int, ...], torch.cuda.CUDAGraph]()
        self.device, self.stream, self.warmed_up = device, torch.cuda.Stream(device), set[tuple[int, ...]]()

    def __call__(self, *arguments: int) -> None:
        """Run the step."""
        widths = arguments[1:]
        if widths not in self.warmed_up:  # the first run loads kernels, not allowed during a capture
            self.step(*arguments)
            self.warmed_up.add(widths)
            return
        if arguments not in self.graphs:
            self.graphs[arguments] = self._capture(arguments)
        self.graphs[arguments].replay()

    def _capture(self, arguments: tuple[int, ...]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.graphs.values())).pool() if self.graphs else None
        # Another thread encodes images meanwhile; its CUDA calls must not invalidate the capture.
        capture = torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local")
        with torch.cuda.device(self.device), capture:
            self.step(*arguments)
        return graph
