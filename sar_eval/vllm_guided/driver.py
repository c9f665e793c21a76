"""Pairs of requests through vLLM, wave by wave, so that both rows of an image stay in step.

A wave is certain to be prefilled in one step and never to be preempted: its prompts fit the tokens of a
step, its requests the batch, the keys and values of the finished images the cache. The scheduler stands
still while a wave is handed over. Should a pair fall out of step all the same, its rows end with a mark
(see `pairing`) and it goes on from the tokens that both rows have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from sar_eval.errors import DeviceLost
from sar_eval.tensors.out_of_memory import is_out_of_memory
from sar_eval.vllm_guided.pairing import Branch, Layout

TRIES = 3  # rounds that an image on its own may end without a token more
RESTARTS = 100  # of one image in all


@dataclass(frozen=True, slots=True)
class Order:
    """An image to draw.

    Attributes:
        prompts: token ids of the checkpoint: the prompt's, and with guidance the negative prompt's.
        seed: of the draw.
        guidance, temperature, top_k, top_p: how to sample.
        scored: also tell log-probabilities.
    """

    prompts: tuple[tuple[int, ...], ...]
    seed: int
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    scored: bool = False

    def branch(self, pair: str, negative: bool, start: int) -> Branch:
        """What the processor is told about one of its rows."""
        how = (self.guidance, self.temperature, self.top_k, self.top_p, self.scored)
        return Branch(pair, negative, self.seed, start, *how)


@dataclass(slots=True)
class Drawn:
    """How far an image has come.

    Attributes:
        tokens: in the engine's numbering (`Layout`), no marks.
        scores: log-probabilities of the tokens, for each row.
        failed_at: the token whose scores were no numbers; -1 for none.
        error: why it cannot be drawn.
        restarts: how often its rows were out of step.
    """

    tokens: list[int] = field(default_factory=list)
    scores: tuple[list[float], ...] = field(default_factory=lambda: ([], []))
    failed_at: int = -1
    error: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What vLLM can take on at once.

    Attributes:
        requests: sequences in the batch (`max_num_seqs`).
        step_tokens: tokens of one step (`max_num_batched_tokens`).
        blocks, block_size: of the cache for keys and values, in blocks and tokens.
    """

    requests: int
    step_tokens: int
    blocks: int
    block_size: int

    @classmethod
    def of(cls, config: Any) -> Capacity:
        """From vLLM's configuration; one block is never given out."""
        scheduler, cache = config.scheduler_config, config.cache_config
        usable = int(cache.num_gpu_blocks * (1 - scheduler.watermark)) - 1
        return cls(scheduler.max_num_seqs, scheduler.max_num_batched_tokens, usable, cache.block_size)

    def shortage(self, starts: Sequence[int], ends: Sequence[int]) -> str:
        """Why sequences cannot be drawn together, "" if they can.

        Args:
            starts: tokens that each sequence is submitted with.
            ends: tokens that it grows to.
        """
        blocks = sum(-(-length // self.block_size) for length in ends)
        if len(starts) > self.requests:
            return f"{len(starts)} sequences, max_num_seqs is {self.requests}"
        if sum(starts) > self.step_tokens:
            return f"{sum(starts)} prompt tokens, max_num_batched_tokens is {self.step_tokens}"
        if blocks > self.blocks:
            return f"{blocks} blocks of {self.block_size} tokens, the cache has {self.blocks}"
        return ""

    def at_once(self, prompt: int, branches: int, steps: int) -> int:
        """How many images with prompts of at most so many tokens fit, 0 if not even one does."""
        blocks = -(-(prompt + steps) // self.block_size)
        return min(self.requests, self.step_tokens // prompt, self.blocks // blocks) // branches


class VllmDriver:
    """Draws images with a vLLM engine that has `GuidedPairs` and `VisualDecoder`."""

    def __init__(self, engine: Any, layout: Layout, steps: int, waves: bool = True) -> None:
        """Take an engine.

        Args:
            engine: a `vllm.v1.engine.llm_engine.LLMEngine`.
            layout: how its token ids are numbered.
            steps: tokens of an image.
            waves: keep to what is certain to stay in step; without, everything is handed over at once.
        """
        self.engine, self.layout, self.steps, self.waves = engine, layout, steps, waves
        self.capacity = Capacity.of(engine.vllm_config)
        self._pairs, self._lost = 0, ""

    def draw(self, orders: Sequence[Order]) -> list[Drawn]:
        """Draw all of them.

        Raises:
            DeviceLost: vLLM failed, now or before; what it was given then is still in it.
        """
        if self._lost:
            raise DeviceLost(self._lost)
        drawn = [Drawn() for _ in orders]
        waiting, at_once, idle = deque(range(len(orders))), max(1, len(orders)), 0
        while waiting:
            wave = self._next_wave(waiting, orders, drawn, at_once)
            before = sum(len(drawn[n].tokens) for n in wave)
            if not wave:
                continue
            self._round({n: orders[n] for n in wave}, drawn)
            again = [n for n in wave if self._unfinished(drawn[n])]
            moved = not again or sum(len(drawn[n].tokens) for n in wave) > before
            idle = 0 if moved or len(wave) > 1 else idle + 1
            at_once = min(2 * at_once, len(orders)) if moved else max(1, len(wave) // 2)
            if idle >= TRIES:
                drawn[wave[0]].error = f"its two rows were out of step {TRIES} times at the same token"
                idle = 0
            for n in again:
                if drawn[n].restarts >= RESTARTS:
                    drawn[n].error = f"its two rows were out of step {RESTARTS} times"
            waiting.extendleft(n for n in reversed(again) if not drawn[n].error)
        return drawn

    def _unfinished(self, image: Drawn) -> bool:
        return len(image.tokens) < self.steps and image.failed_at < 0 and not image.error

    def _next_wave(
        self, waiting: deque[int], orders: Sequence[Order], drawn: list[Drawn], at_once: int
    ) -> list[int]:
        """The next images that fit together; one that does not even fit alone gets its error."""
        wave: list[int] = []
        starts: list[int] = []
        ends: list[int] = []
        while waiting and len(wave) < at_once:
            number = waiting[0]
            prompts = [len(prompt) for prompt in orders[number].prompts]
            begin = [*starts, *(length + len(drawn[number].tokens) for length in prompts)]
            end = [*ends, *(length + self.steps for length in prompts)]
            short = self.capacity.shortage(begin, end) if self.waves else ""
            if short and wave:
                break
            if short and drawn[number].tokens:  # too long to go on with in one step, but not to begin with
                drawn[number] = Drawn(restarts=drawn[number].restarts)
                continue
            waiting.popleft()
            if short:
                drawn[number].error = f"an image takes {short}"
                continue
            wave.append(number)
            starts, ends = begin, end
        return wave

    def _round(self, wave: dict[int, Order], drawn: list[Drawn]) -> None:
        """Hand a wave over, wait for all of it, take in what its rows agree on."""
        requests: dict[int, list[str]] = {}
        finished: dict[str, Any] = {}
        try:
            with self._standing_still():
                for number, order in wave.items():
                    requests[number] = self._hand_over(order, drawn[number])
            while self.engine.has_unfinished_requests():
                finished |= {out.request_id: out.outputs[0] for out in self.engine.step() if out.finished}
        except Exception as error:
            self._lost = f"vLLM failed: {_in_short(error)}"
            if is_out_of_memory(error):
                self._lost += (
                    "; give it less with --engine-option gpu_memory_utilization=0.7, or a smaller batch"
                )
            raise DeviceLost(self._lost) from error
        for number, names in requests.items():
            if names:
                self._take_in(drawn[number], [finished[name] for name in names])

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Keep the scheduler from starting with half a wave (the core may be another process)."""
        self.engine.sleep(0, "keep")
        try:
            yield
        finally:
            self.engine.wake_up(["scheduling"])

    def _hand_over(self, order: Order, image: Drawn) -> list[str]:
        """Submit the rows of an image; a request that vLLM refuses is the image's error."""
        from vllm.exceptions import VLLMError
        from vllm.inputs.engine import tokens_input

        self._pairs += 1
        names: list[str] = []
        for number, prompt in enumerate(order.prompts):
            if odd := [i for i in prompt if not 0 <= i < self.layout.codes + self.layout.text]:
                # vLLM would not notice: it was started without a tokenizer.
                image.error = f"token id {odd[0]} of its prompt is not in the vocabulary"
                self.engine.abort_request(names)
                return []
            name = f"{self._pairs}/{number}"
            branch = order.branch(str(self._pairs), number > 0, len(image.tokens))
            tokens = tokens_input([*self.layout.inward(prompt), *image.tokens])
            try:
                self.engine.add_request(name, tokens, self._parameters(branch))
            except (ValueError, VLLMError) as error:
                image.error = f"vLLM refused it: {_in_short(error)}"
                self.engine.abort_request(names)
                return []
            names.append(name)
        return names

    def _parameters(self, branch: Branch) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from sar_eval.vllm_guided.processor import ARGUMENT

        return SamplingParams(
            temperature=0,
            max_tokens=self.steps - branch.start,
            ignore_eos=True,
            detokenize=False,
            stop_token_ids=[self.layout.out_of_step, self.layout.fault],
            logprobs=0 if branch.scored else None,
            flat_logprobs=branch.scored,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={ARGUMENT: branch.to_args()},
        )

    def _take_in(self, image: Drawn, rows: Sequence[Any]) -> None:
        tokens = [list(row.token_ids) for row in rows]
        common = agreed(tokens, {self.layout.out_of_step, self.layout.fault})
        image.tokens = image.tokens + tokens[0][:common]
        scores = [list(row.logprobs.logprobs[:common]) if row.logprobs else [] for row in rows]
        image.scores = tuple([*old, *new] for old, new in zip(image.scores, scores, strict=False))
        if all(row[common : common + 1] == [self.layout.fault] for row in tokens):
            image.failed_at = len(image.tokens)
        elif len(image.tokens) < self.steps:
            image.restarts += 1


def agreed(rows: Sequence[Sequence[int]], marks: set[int]) -> int:
    """How many tokens rows have in common from the start, marks excluded."""
    same = takewhile(lambda at: len(set(at)) == 1 and at[0] not in marks, zip(*rows, strict=False))
    return sum(1 for _ in same)


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
