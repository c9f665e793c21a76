"""Sends pairs of requests through vLLM in waves, so that both rows of an image stay in sync.

A wave is certain to be prefilled in one step and never to be preempted: its prompts fit the token budget of
a step, its requests the batch, the keys and values of the finished images the KV cache. The scheduler is
paused while a wave is submitted. If a pair gets out of sync all the same, its rows end with a marker (see
`pairing`) and it is restarted from the tokens that both rows have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sar_eval.errors import DeviceLost
from sar_eval.tensors.out_of_memory import is_out_of_memory
from sar_eval.vllm_guided.pairing import Branch, TokenLayout
from sar_eval.vllm_guided.plugin import CONFIG_KEY

if TYPE_CHECKING:
    from torch import Tensor

MAX_STALLED_ROUNDS = 3  # rounds without a new token, of an image in a wave of its own
MAX_RESTARTS = 100  # of one image in all


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An image to draw.

    Attributes:
        prompts: the checkpoint's token ids of the prompt and, with guidance, of the negative prompt; or of
            the K branches that `weights` combine.
        seed: of the draw.
        guidance, temperature, top_k, top_p, min_p: how to sample.
        return_log_probabilities: also return log-probabilities.
        weights: how guidance combines K branches, for all codes or for each (see `ImagePlan`); empty for
            `guidance` of one or two.
        forced: the checkpoint's ids of the tokens that are not sampled, by slot of the image.
    """

    prompts: tuple[tuple[int, ...], ...]
    seed: int
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    return_log_probabilities: bool = False
    min_p: float = 0.0
    weights: tuple[tuple[float, ...], ...] = ()
    forced: Mapping[int, int] = field(default_factory=dict)

    def branch(self, pair_id: str, index: int, start: int, layout: TokenLayout | None = None) -> Branch:
        """One of its branches, for the logits processor.

        Args:
            pair_id, index, start: see `Branch`.
            layout: the engine's numbering; None for the checkpoint's.
        """
        sampling = (self.guidance, self.temperature, self.top_k, self.top_p, self.return_log_probabilities)
        slots, ids = sorted(self.forced), [self.forced[slot] for slot in sorted(self.forced)]
        forced = tuple(zip(slots, ids if layout is None else layout.to_engine_ids(ids), strict=True))
        return Branch(pair_id, index, self.seed, start, *sampling, self.min_p, self.weights, forced)


@dataclass(slots=True)
class ImageOutput:
    """The tokens of an image, updated from wave to wave.

    Attributes:
        tokens: in the engine's numbering (`TokenLayout`), without markers; what is forced included.
        log_probabilities: of the tokens, for each row (see `PairSampler`).
        failed_at: the token whose scores were NaN or infinite; -1 for none.
        error: why it cannot be drawn.
        restarts: how often its rows were out of sync.
    """

    tokens: list[int] = field(default_factory=list)
    log_probabilities: tuple[list[float], ...] = field(default_factory=lambda: ([], []))
    failed_at: int = -1
    error: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What vLLM can process at once.

    Attributes:
        max_num_seqs: sequences in the batch.
        max_num_batched_tokens: tokens of one step.
        num_blocks, block_size: of the KV cache, in blocks and tokens.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    num_blocks: int
    block_size: int

    @classmethod
    def from_config(cls, config: Any) -> Capacity:
        """Read vLLM's configuration; one block is reserved by vLLM."""
        scheduler, cache = config.scheduler_config, config.cache_config
        usable = int(cache.num_gpu_blocks * (1 - scheduler.watermark)) - 1
        return cls(scheduler.max_num_seqs, scheduler.max_num_batched_tokens, usable, cache.block_size)

    def shortage(self, start_lengths: Sequence[int], end_lengths: Sequence[int]) -> str:
        """Why sequences cannot be drawn together, "" if they can.

        Args:
            start_lengths: tokens that each sequence is submitted with.
            end_lengths: tokens of each sequence when its image is finished.
        """
        blocks = sum(-(-length // self.block_size) for length in end_lengths)
        if len(start_lengths) > self.max_num_seqs:
            return f"{len(start_lengths)} sequences, max_num_seqs is {self.max_num_seqs}"
        if sum(start_lengths) > self.max_num_batched_tokens:
            return (
                f"{sum(start_lengths)} prompt tokens, "
                f"max_num_batched_tokens is {self.max_num_batched_tokens}"
            )
        if blocks > self.num_blocks:
            return f"{blocks} blocks of {self.block_size} tokens, the cache has {self.num_blocks}"
        return ""

    def max_images(self, prompt_length: int, branches: int, image_tokens: int) -> int:
        """How many images with prompts of at most that length fit, 0 if not even one does."""
        blocks = -(-(prompt_length + image_tokens) // self.block_size)
        sequences = min(
            self.max_num_seqs, self.max_num_batched_tokens // prompt_length, self.num_blocks // blocks
        )
        return sequences // branches


class VllmDriver:
    """Draws images with a vLLM engine that uses `GuidanceLogitsProcessor` and `VisualDecoder`."""

    def __init__(self, engine: Any, layout: TokenLayout, image_tokens: int, waves: bool = True) -> None:
        """Read the engine's capacity.

        Args:
            engine: a `vllm.v1.engine.llm_engine.LLMEngine`.
            layout: the numbering of its token ids.
            image_tokens: tokens of an image, forced ones included.
            waves: submit only what is certain to stay in sync; if false, everything at once.
        """
        self.engine, self.layout, self.image_tokens, self.waves = engine, layout, image_tokens, waves
        self.capacity = Capacity.from_config(engine.vllm_config)
        self._pair_count, self._failure = 0, ""

    def generate(self, requests: Sequence[ImageRequest]) -> list[ImageOutput]:
        """Draw all requested images.

        Raises:
            DeviceLost: vLLM failed, in this call or an earlier one, after which it is not usable.
        """
        if self._failure:
            raise DeviceLost(self._failure)
        outputs = [ImageOutput() for _ in requests]
        waiting, limit, stalled = deque(range(len(requests))), max(1, len(requests)), 0
        while waiting:
            wave = self._next_wave(waiting, requests, outputs, limit)
            before = sum(len(outputs[n].tokens) for n in wave)
            if not wave:
                continue
            self._run_wave({n: requests[n] for n in wave}, outputs)
            unfinished = [n for n in wave if self._is_unfinished(outputs[n])]
            progress = not unfinished or sum(len(outputs[n].tokens) for n in wave) > before
            stalled = 0 if progress or len(wave) > 1 else stalled + 1
            limit = min(2 * limit, len(requests)) if progress else max(1, len(wave) // 2)
            if stalled >= MAX_STALLED_ROUNDS:
                times = f"{MAX_STALLED_ROUNDS} times at the same token"
                outputs[wave[0]].error = f"its two rows were out of sync {times}"
                stalled = 0
            for n in unfinished:
                if outputs[n].restarts >= MAX_RESTARTS:
                    outputs[n].error = f"its two rows were out of sync {MAX_RESTARTS} times"
            waiting.extendleft(n for n in reversed(unfinished) if not outputs[n].error)
        return outputs

    @property
    def in_process(self) -> bool:
        """Whether vLLM's core runs in this process."""
        return getattr(self.engine.engine_core, "resources", None) is None

    def load_weights(self, weights: list[tuple[str, Tensor]]) -> None:
        """Replace the model's weights by tensors with the checkpoint's names, in each of its processes.

        Raises:
            DeviceLost: vLLM failed, in this call or an earlier one, after which it is not usable.
        """
        if self._failure:
            raise DeviceLost(self._failure)
        try:
            self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self.engine.reset_prefix_cache()
        except Exception as error:
            self._failure = f"vLLM failed to load new weights: {_summary(error)}"
            raise DeviceLost(self._failure) from error

    def _is_unfinished(self, output: ImageOutput) -> bool:
        return len(output.tokens) < self.image_tokens and output.failed_at < 0 and not output.error

    def _next_wave(
        self,
        waiting: deque[int],
        requests: Sequence[ImageRequest],
        outputs: list[ImageOutput],
        limit: int,
    ) -> list[int]:
        """Take the next images that fit together; one that does not fit alone gets an error."""
        wave: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        while waiting and len(wave) < limit:
            number = waiting[0]
            output = outputs[number]
            lengths = [len(prompt) for prompt in requests[number].prompts]
            new_starts = [*starts, *(length + len(output.tokens) for length in lengths)]
            new_ends = [*ends, *(length + self.image_tokens for length in lengths)]
            shortage = self.capacity.shortage(new_starts, new_ends) if self.waves else ""
            if shortage and wave:
                break
            if shortage and output.tokens:  # too long to be prefilled with its tokens, but not without
                outputs[number] = ImageOutput(restarts=output.restarts)
                continue
            waiting.popleft()
            if shortage:
                output.error = f"an image takes {shortage}"
                continue
            wave.append(number)
            starts, ends = new_starts, new_ends
        return wave

    def _run_wave(self, wave: dict[int, ImageRequest], outputs: list[ImageOutput]) -> None:
        """Submit a wave, wait until all of it is finished, and collect the tokens its pairs agree on."""
        request_ids: dict[int, list[str]] = {}
        finished: dict[str, Any] = {}
        try:
            with self._paused_scheduler():
                for number, request in wave.items():
                    request_ids[number] = self._submit(request, outputs[number])
            while self.engine.has_unfinished_requests():
                finished |= {out.request_id: out.outputs[0] for out in self.engine.step() if out.finished}
        except Exception as error:
            self._failure = f"vLLM failed: {_summary(error)}"
            if is_out_of_memory(error):
                self._failure += (
                    "; give it less with --engine-option gpu_memory_utilization=0.7, or a smaller batch"
                )
            raise DeviceLost(self._failure) from error
        for number, ids in request_ids.items():
            if ids:
                self._collect(outputs[number], [finished[request_id] for request_id in ids])

    @contextmanager
    def _paused_scheduler(self) -> Iterator[None]:
        """Keep the scheduler from starting with half a wave (the core may be another process)."""
        self.engine.sleep(0, "keep")
        try:
            yield
        finally:
            self.engine.wake_up(["scheduling"])

    def _submit(self, request: ImageRequest, output: ImageOutput) -> list[str]:
        """Submit the rows of an image and return their request ids; a refusal is the image's error."""
        from vllm.exceptions import VLLMError
        from vllm.inputs.engine import tokens_input

        self._pair_count += 1
        request_ids: list[str] = []
        vocab_size = self.layout.codebook_size + self.layout.text_vocab_size
        for number, prompt in enumerate(request.prompts):
            if invalid := [i for i in prompt if not 0 <= i < vocab_size]:
                # vLLM does not check this: it was started without a tokenizer.
                output.error = f"token id {invalid[0]} of its prompt is not in the vocabulary"
                self.engine.abort_request(request_ids)
                return []
            request_id = f"{self._pair_count}/{number}"
            branch = request.branch(str(self._pair_count), number, len(output.tokens), self.layout)
            tokens = tokens_input([*self.layout.to_engine_ids(prompt), *output.tokens])
            try:
                self.engine.add_request(request_id, tokens, self._sampling_params(branch))
            except (ValueError, VLLMError) as error:
                output.error = f"vLLM refused it: {_summary(error)}"
                self.engine.abort_request(request_ids)
                return []
            request_ids.append(request_id)
        return request_ids

    def _sampling_params(self, branch: Branch) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0,
            max_tokens=self.image_tokens - branch.start,
            ignore_eos=True,
            detokenize=False,
            stop_token_ids=[self.layout.out_of_sync_id, self.layout.not_finite_id],
            logprobs=0 if branch.return_log_probabilities else None,
            flat_logprobs=branch.return_log_probabilities,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={CONFIG_KEY: branch.to_dict()},
        )

    def _collect(self, output: ImageOutput, rows: Sequence[Any]) -> None:
        """Append the tokens that the rows of an image have in common."""
        tokens = [list(row.token_ids) for row in rows]
        common = common_prefix_length(tokens, {self.layout.out_of_sync_id, self.layout.not_finite_id})
        output.tokens = output.tokens + tokens[0][:common]
        new = [list(row.logprobs.logprobs[:common]) if row.logprobs else [] for row in rows]
        before_of_rows = [*output.log_probabilities, *([] for _ in rows)][: len(rows)]
        pairs = zip(before_of_rows, new, strict=True)
        output.log_probabilities = tuple([*before, *added] for before, added in pairs)
        if all(row[common : common + 1] == [self.layout.not_finite_id] for row in tokens):
            output.failed_at = len(output.tokens)
        elif len(output.tokens) < self.image_tokens:
            output.restarts += 1


def common_prefix_length(rows: Sequence[Sequence[int]], markers: set[int]) -> int:
    """How many tokens rows have in common from the start, up to a marker."""
    common = takewhile(
        lambda tokens: len(set(tokens)) == 1 and tokens[0] not in markers, zip(*rows, strict=False)
    )
    return sum(1 for _ in common)


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
