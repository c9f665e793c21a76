"""Guided drawing on an unmodified vLLM: two requests an image, sampled together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.errors import BadInput
from sar_eval.types import Draw, DrawProtocol
from sar_eval.vllm_guided.start import installed

if TYPE_CHECKING:
    from sar_eval.decoding.loop import Decoded
    from sar_eval.vllm_guided.driver import Drawn, Order, VllmDriver
    from sar_eval.vllm_guided.guidance_check import Deviation
    from sar_eval.vllm_guided.pairing import Layout

WAVE = 128  # images in flight, as in `native`
PROMPT = 64  # tokens a row that a step's budget has for prompts, unless it is given
SHARE_OF_GPU = 0.8  # vLLM's part; sampling and images need some beside it
CPU_BLOCK = 128  # tokens of a block of vLLM's cache on the CPU
LONG = 4096  # tokens of a prompt that the budget has room for at least
OURS = (  # vLLM's options that this engine sets itself, or cannot keep pairs in step with
    *("model", "hf_overrides", "logits_processors", "logprobs_mode", "skip_tokenizer_init", "dtype"),
    *("max_model_len", "speculative_config", "data_parallel_size", "prefill_context_parallel_size"),
    *("enable_batch_sharded_sampling", "distributed_executor_backend", "max_num_scheduled_tokens"),
    *("max_num_active_seqs", "long_prefill_token_threshold"),
)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A sampled image as a policy-gradient trainer wants it.

    Attributes:
        key: of the draw.
        prompt_ids: token ids of the prompted row; empty where the prompt is too long.
        completion_ids: sampled token ids, in the checkpoint's numbering.
        log_probabilities: of the sampled tokens under the distribution they were drawn from (guidance,
            temperature, top-k and top-p applied).
        conditional: of the same tokens under the prompted branch alone, at the same temperature, nothing
            narrowed. Empty where guidance is off and top-k or top-p narrow: one row tells one number.
        error: why there is none.
    """

    key: str
    prompt_ids: tuple[int, ...] = ()
    completion_ids: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    conditional: tuple[float, ...] = ()
    error: str = ""


class VllmEngine(TokenEngine):
    """Draws with a SimpleAR-shaped checkpoint on vLLM.

    The noise is the other engines', so in float32 the tokens are theirs. docs/engines.md explains how the
    two rows of an image stay together.
    """

    speed_options = (
        *TokenEngine.speed_options,
        *("waves", "rounding", "tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization"),
        *("max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes", "enable_prefix_caching"),
        *("async_scheduling", "enforce_eager", "block_size", "disable_log_stats"),
    )

    def __init__(
        self,
        checkpoint: str,
        protocol: DrawProtocol,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
        visual_tokenizer: str = "",
        image_format: str = "png",
        waves: bool = True,
        rounding: float = 0.0,
        **options: Any,
    ) -> None:
        """As `TokenEngine`, and:

        Args:
            checkpoint: its name.
            protocol: how to draw.
            device, dtype, batch_size, visual_tokenizer, image_format: as for every engine.
            waves: submit only what is certain to stay in step (see `vllm_guided.driver`).
            rounding: nats that the check at the start allows at least (see
                `vllm_guided.guidance_check`); 0 for what the dtype explains. A quantised checkpoint may
                need more.
            options: vLLM's own, by name: `tensor_parallel_size`, `gpu_memory_utilization`,
                `max_num_seqs`, `quantization` and whatever `vllm.EngineArgs` takes.

        Raises:
            MissingExtra: no vLLM is installed.
            BadInput: it is of another version, or an option is one that this engine sets itself.
        """
        super().__init__(
            checkpoint,
            protocol,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            visual_tokenizer=visual_tokenizer,
            image_format=image_format,
        )
        if taken := set(options) & set(OURS):
            raise BadInput(f"engine 'vllm' sets {min(taken)} itself, or does not work with it")
        if not isinstance(rounding, (int, float)) or rounding < 0:
            raise BadInput(f"rounding is {rounding!r}: nats, 0 for what the dtype explains")
        self.waves, self.rounding, self.options = bool(waves), float(rounding), options
        self.version = f"1 (vllm {installed()})"

    @staticmethod
    def gpus(options: Mapping[str, Any]) -> int:
        """GPUs of one worker.

        Raises:
            BadInput: a number of them that is none.
        """
        sizes = [options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise BadInput(
                f"tensor_parallel_size and pipeline_parallel_size are {sizes}: whole numbers >= 1"
            )
        return int(sizes[0] * sizes[1])

    @property
    def layout(self) -> Layout:
        """How token ids are numbered inside vLLM."""
        from sar_eval.vllm_guided.pairing import Layout

        checkpoint = self.checkpoint
        return Layout(checkpoint.codebook_size, checkpoint.text_vocabulary, self.protocol.full_vocab)

    def load(self) -> None:
        """Start vLLM with the checkpoint and check that guidance is applied.

        Raises:
            BadInput: vLLM cannot work here, or with these options.
            NotGuided: its tokens are not those of the guided checkpoint.
        """
        from sar_eval.vllm_guided.driver import VllmDriver
        from sar_eval.vllm_guided.start import start

        engine = start(self.arguments(), self.device)
        self.driver: VllmDriver = VllmDriver(engine, self.layout, self.steps, self.waves)
        try:
            self.deviation = self.check()
        except BaseException:
            self.unload()
            raise

    def unload(self) -> None:
        """End vLLM and its processes."""
        self.driver.engine.engine_core.shutdown()
        del self.driver

    def arguments(self) -> dict[str, Any]:
        """What vLLM is started with: our defaults, the given options, and what must not be changed."""
        from sar_eval.vllm_guided.plugin import ARCHITECTURE

        rows = min(self.batch_size, WAVE) * self._branches
        positions = self.checkpoint.shape.positions
        defaults = {
            "max_num_seqs": rows,
            "max_num_batched_tokens": max(rows * PROMPT, 2 * min(positions, LONG)),
            "enable_prefix_caching": False,  # nothing to gain: prompts are a percent of the tokens
            "disable_log_stats": True,
            "generation_config": "vllm",
            "use_tqdm_on_load": False,
        }
        if self.device == "cpu":
            defaults |= {"enforce_eager": True, "kv_cache_memory_bytes": self._cache_bytes(rows)}
        else:
            defaults |= {"gpu_memory_utilization": SHARE_OF_GPU}
        layout = self.layout
        ours = {
            "model": str(self.checkpoint.folder),
            "max_model_len": positions,
            "dtype": self.dtype,
            "skip_tokenizer_init": True,
            "hf_overrides": {
                "architectures": [ARCHITECTURE],
                "vocab_size": layout.vocabulary,
                "sar_eval": asdict(layout),
            },
            "logits_processors": ["sar_eval.vllm_guided.processor:GuidedPairs"],
            "logprobs_mode": "processed_logits",  # where the processor leaves log-probabilities
        }
        return {**defaults, **self.options, **ours}

    @property
    def _branches(self) -> int:
        return 1 if self.protocol.guidance == 1 else 2

    def _cache_bytes(self, rows: int) -> int:
        """Memory for keys and values of so many rows on the CPU, at most a share of what is free."""
        from sar_eval.decoding.memory import SHARE, free_bytes, kv_bytes
        from sar_eval.families.simplear import ITEMSIZE

        token = kv_bytes(self.checkpoint.shape, ITEMSIZE[self.dtype])
        # vLLM wants room for one sequence of full length, too, and keeps one block for itself.
        lengths = self.checkpoint.shape.positions + rows * (self.steps + CPU_BLOCK) + 2 * CPU_BLOCK
        # Half of it: weights, scores and other workers want memory as well.
        return min(lengths * token, int(free_bytes("cpu") * SHARE / 2))

    def check(self) -> Deviation:
        """Sample two tokens of a few images and compare them with plain PyTorch."""
        from sar_eval.decoding.load import load_decoder
        from sar_eval.decoding.loop import Vocabulary
        from sar_eval.vllm_guided.driver import VllmDriver
        from sar_eval.vllm_guided.guidance_check import ROUNDING, check_guidance, telling

        first = self.checkpoint.text_vocabulary
        decoder = load_decoder(self.checkpoint, "cpu", "float32")
        visual = range(first, first + self.checkpoint.codebook_size)
        vocabulary = Vocabulary(decoder, visual, self.protocol.full_vocab)
        orders = telling(decoder, vocabulary, self.orders(_check_draws()))
        drawn = VllmDriver(self.driver.engine, self.layout, min(2, self.steps), self.waves).draw(orders)
        for image in drawn:
            image.tokens = [t - vocabulary.first for t in self.layout.outward(image.tokens)]
        rounding = self.rounding or ROUNDING[self.dtype]
        return check_guidance(decoder, vocabulary, orders, drawn, rounding)

    def wave_limit(self, draws: Sequence[Draw]) -> int:
        """As many as vLLM can take on at once; the driver cuts waves by their very lengths."""
        limit = min(self.batch_size, WAVE)
        if not draws or not self.waves:
            return limit
        longest = max(map(len, self.prompts(list(draws))))
        return max(1, min(limit, self.driver.capacity.at_once(longest, self._branches, self.steps)))

    def orders(self, draws: Sequence[Draw], scored: bool = False) -> list[Order]:
        """The draws as vLLM's driver wants them."""
        from sar_eval.vllm_guided.driver import Order

        prompts, number, p = self.prompts(draws), len(draws), self.protocol
        return [
            Order(
                tuple(tuple(row) for row in prompts[n::number]),
                draw.seed,
                float(p.guidance),
                float(p.temperature),
                p.top_k,
                float(p.top_p),
                scored,
            )
            for n, draw in enumerate(draws)
        ]

    def decode_tokens(self, draws: Sequence[Draw]) -> Decoded:
        """Visual codes of a wave."""
        import torch

        from sar_eval.decoding.loop import Decoded

        drawn = self.driver.draw(self.orders(draws))
        rows = [self._codes(image) for image in drawn]
        return Decoded(
            torch.tensor([codes for codes, _ in rows]),
            torch.tensor([image.failed_at for image in drawn]),
            torch.tensor([outside for _, outside in rows]),
            [self.steps - 1] * len(drawn),
            [image.error for image in drawn],
        )

    def _codes(self, image: Drawn) -> tuple[list[int], int]:
        """Codes, text tokens as code 0, filled up where there are none; how many were text."""
        codes = [token if token < self.layout.codes else 0 for token in image.tokens]
        outside = sum(token >= self.layout.codes for token in image.tokens)
        return codes + [0] * (self.steps - len(codes)), outside

    def rollouts(self, draws: Sequence[Draw]) -> list[Rollout]:
        """Sample tokens with their log-probabilities, no images; for a policy-gradient trainer."""
        told = [self._too_long(draw) for draw in draws]
        orders = self.orders([d for d, error in zip(draws, told, strict=True) if not error], scored=True)
        sampled = iter(zip(orders, self.driver.draw(orders), strict=True))
        return [
            Rollout(draw.key, error=error) if error else self._rollout(draw.key, *next(sampled))
            for draw, error in zip(draws, told, strict=True)
        ]

    def _rollout(self, key: str, order: Order, image: Drawn) -> Rollout:
        prompt = order.prompts[0]
        if error := image.error or ("its scores are no numbers" if image.failed_at >= 0 else ""):
            return Rollout(key, prompt, error=error)
        drawn_from, alone = tuple(image.scores[0]), tuple(image.scores[-1])
        if len(order.prompts) == 1:
            alone = () if order.top_k or order.top_p < 1 else drawn_from
        return Rollout(key, prompt, tuple(self.layout.outward(image.tokens)), drawn_from, alone)


def _check_draws() -> list[Draw]:
    from sar_eval.types import Prompt

    texts = ("a photo of a cat", "two red apples on a table", "a blue star above a ring", "a house")
    return [Draw(Prompt(f"check{n}", text), 0, n + 1) for n, text in enumerate(texts)]


ENGINE = VllmEngine
