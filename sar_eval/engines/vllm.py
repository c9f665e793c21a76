"""Guided drawing on an unmodified vLLM: two requests per image, sampled together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval.decoding.token_engine import TokenEngine
from sar_eval.engines._vllm_config import refuse_checkpoint, write_config
from sar_eval.errors import BadInput
from sar_eval.families.image_plan import guidance_weights
from sar_eval.families.simplear import Checkpoint
from sar_eval.types import Draw, DrawProtocol
from sar_eval.vllm_guided.start import installed_version

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.decoding.loop import DecodeOutput
    from sar_eval.vllm_guided.driver import ImageOutput, ImageRequest, VllmDriver
    from sar_eval.vllm_guided.guidance_check import Deviation
    from sar_eval.vllm_guided.pairing import TokenLayout

MAX_WAVE = 128  # images, as in `native`
PROMPT_TOKENS_PER_ROW = 64  # what max_num_batched_tokens has room for by default
LONG_PROMPT = 4096  # tokens; max_num_batched_tokens has room for two such prompts at least
GPU_MEMORY_UTILIZATION = 0.8  # default; sampling and the visual tokenizer need memory beside vLLM
CPU_BLOCK_SIZE = 128  # tokens of a block of vLLM's KV cache on the CPU
RESERVED_OPTIONS = (  # vLLM's options that this engine sets itself, or that pairs cannot stay in sync with
    *("model", "hf_overrides", "logits_processors", "logprobs_mode", "skip_tokenizer_init", "dtype"),
    *("max_model_len", "speculative_config", "data_parallel_size", "prefill_context_parallel_size"),
    *("enable_batch_sharded_sampling", "distributed_executor_backend", "max_num_scheduled_tokens"),
    *("max_num_active_seqs", "long_prefill_token_threshold", "hf_config_path"),
)
OWN_LOADER_OPTIONS = ("load_format", "model_loader_extra_config")  # where the family reads the weights


class VllmEngine(TokenEngine):
    """Draws with a checkpoint of a token family on vLLM.

    The noise is that of the other engines, so in float32 the tokens are equal. docs/engines.md explains how
    the two rows of an image stay in sync. SimpleAR's files are read by vLLM; those of other families by the
    family, and vLLM gets a config alone.
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
        waves: bool = True,
        rounding: float = 0.0,
        **options: Any,
    ) -> None:
        """As `TokenEngine`, and:

        Args:
            checkpoint: name of the checkpoint.
            protocol: how to draw.
            waves: submit only what is certain to stay in sync (see `vllm_guided.driver`).
            rounding: deviation in nats that the self-check always allows (see
                `vllm_guided.guidance_check`); 0 for the dtype's default. A quantised checkpoint may need
                more.
            options: those of `TokenEngine`; all others go to vLLM: `tensor_parallel_size`,
                `gpu_memory_utilization`, `max_num_seqs`, `quantization` and any other field of
                `vllm.EngineArgs`.

        Raises:
            MissingExtra: vLLM is not installed.
            BadInput: its version is not supported, or an option is one that this engine sets itself.
        """
        common = {name: options.pop(name) for name in TokenEngine.option_names() if name in options}
        super().__init__(checkpoint, protocol, **common)
        self.visual_tokenizer = str(common.get("visual_tokenizer", ""))
        reserved_options = set(RESERVED_OPTIONS)
        if isinstance(self.checkpoint, Checkpoint):
            _refuse_stray_files(self.checkpoint)
        else:
            reserved_options |= set(OWN_LOADER_OPTIONS)
        if reserved := set(options) & reserved_options:
            raise BadInput(
                f"engine 'vllm' reserves the option {min(reserved)}: it sets it itself, or cannot use it"
            )
        if not isinstance(rounding, (int, float)) or rounding < 0:
            raise BadInput(
                f"rounding is {rounding!r}: it must be at least 0 (nats); 0 is the default of the dtype"
            )
        self.waves, self.rounding, self.options = bool(waves), float(rounding), options
        self.version = f"1 (vllm {installed_version()})"

    @staticmethod
    def gpus(options: Mapping[str, Any]) -> int:
        """Number of GPUs of one worker.

        Raises:
            BadInput: a parallel size is no whole number of at least 1.
        """
        sizes = [options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise BadInput(
                f"tensor_parallel_size and pipeline_parallel_size are {sizes}: whole numbers >= 1"
            )
        return int(sizes[0] * sizes[1])

    def check_checkpoint(self) -> None:
        """Refuse what our model classes for vLLM do not compute.

        Raises:
            BadInput: it is that.
        """
        refuse_checkpoint(self.checkpoint)

    @property
    def layout(self) -> TokenLayout:
        """The numbering of token ids inside vLLM."""
        from sar_eval.vllm_guided.pairing import TokenLayout

        codes, text = self.checkpoint.codebook_size, self.checkpoint.text_vocab_size
        forced = {i for slot, i in self.plan.forced.items() if i < text and slot < self.plan.slots}
        return TokenLayout(codes, text, self.protocol.full_vocab, tuple(sorted(forced)))

    def load(self) -> None:
        """Start vLLM with the checkpoint and check that guidance is applied.

        Raises:
            BadInput: vLLM does not work on this device or with these options.
            GuidanceCheckFailed: it does not sample from the guided checkpoint.
        """
        from sar_eval.vllm_guided.driver import VllmDriver
        from sar_eval.vllm_guided.start import start_engine

        # What vLLM takes for the model's folder, where the family reads the weights.
        with tempfile.TemporaryDirectory(prefix="sar-eval-vllm-") as folder:
            arguments = self.engine_args()
            if not isinstance(self.checkpoint, Checkpoint):
                write_config(Path(folder), self.checkpoint.decoder_config, self.layout)
                arguments["model"] = folder
            engine = start_engine(arguments, self.device.partition(":")[0])
        self.driver: VllmDriver = VllmDriver(engine, self.layout, self.plan.slots, self.waves)
        try:
            self.deviation = self.check_guidance()
        except BaseException:
            self.unload()
            raise

    def unload(self) -> None:
        """Stop vLLM and its processes."""
        self.driver.engine.engine_core.shutdown()
        del self.driver

    def engine_args(self) -> dict[str, Any]:
        """Arguments of `vllm.EngineArgs`: defaults, then the user's options, then what is fixed."""
        rows = min(self.batch_size, MAX_WAVE) * self.plan.branches
        positions = self.checkpoint.decoder_config.max_position_embeddings
        defaults = {
            "max_num_seqs": rows,
            "max_num_batched_tokens": max(rows * PROMPT_TOKENS_PER_ROW, 2 * min(positions, LONG_PROMPT)),
            "enable_prefix_caching": False,  # no gain: prompts are one percent of the tokens
            "disable_log_stats": True,
            "generation_config": "vllm",
            "use_tqdm_on_load": False,
        }
        if self.device == "cpu":
            defaults |= {"enforce_eager": True, "kv_cache_memory_bytes": self._cache_bytes(rows)}
        else:
            defaults |= {"gpu_memory_utilization": GPU_MEMORY_UTILIZATION}
        if number := self.device.partition(":")[2]:
            defaults |= {"device_ids": [int(number) + n for n in range(self.gpus(self.options))]}
        fixed = {
            "max_model_len": positions,
            "dtype": self.dtype,
            "skip_tokenizer_init": True,
            "logits_processors": ["sar_eval.vllm_guided.logits_processor:GuidanceLogitsProcessor"],
            "logprobs_mode": "processed_logits",  # where the logits processor writes log-probabilities
        }
        return {**defaults, **self.options, **fixed, **self._model_args()}

    def _model_args(self) -> dict[str, Any]:
        """Which model vLLM loads, and how it reads the weights."""
        from sar_eval.vllm_guided.plugin import ARCHITECTURE, CONFIG_KEY, LOAD_FORMAT

        layout = self.layout
        if isinstance(self.checkpoint, Checkpoint):
            overrides = {"architectures": [ARCHITECTURE], "vocab_size": layout.vocab_size}
            model = str(self.checkpoint.folder)
            return {"model": model, "hf_overrides": overrides | {CONFIG_KEY: asdict(layout)}}
        named = {"checkpoint": self.checkpoint.name, "visual_tokenizer": self.visual_tokenizer}
        return {"load_format": LOAD_FORMAT, "model_loader_extra_config": named}

    def _cache_bytes(self, rows: int) -> int:
        """Size of the KV cache on the CPU for so many rows, limited by the free memory."""
        from sar_eval.decoding.memory import MEMORY_UTILIZATION, free_bytes, kv_bytes
        from sar_eval.families.simplear import ITEMSIZE

        config, block = self.checkpoint.decoder_config, CPU_BLOCK_SIZE
        # vLLM also requires space for one sequence of full length, and reserves one block.
        tokens = config.max_position_embeddings + rows * (self.plan.slots + block) + 2 * block
        # Half of the memory: weights, logits and other workers need some as well.
        limit = int(free_bytes("cpu") * MEMORY_UTILIZATION / 2)
        return min(tokens * kv_bytes(config, ITEMSIZE[self.dtype]), limit)

    def check_guidance(self) -> Deviation:
        """Sample two tokens of a few images and compare them with plain PyTorch.

        Raises:
            GuidanceCheckFailed: they deviate.
        """
        from sar_eval.decoding.load import load_decoder
        from sar_eval.decoding.loop import Vocabulary
        from sar_eval.vllm_guided.driver import VllmDriver
        from sar_eval.vllm_guided.guidance_check import ROUNDING, check_guidance, check_requests

        decoder = load_decoder(self.checkpoint, "cpu", "float32")
        vocabulary = Vocabulary(decoder, self.checkpoint.visual_ids, self.protocol.full_vocab)
        requests = check_requests(decoder, vocabulary, self.requests(_check_draws()))
        slots = self.plan.code_slots[:2][-1] + 1
        check_driver = VllmDriver(self.driver.engine, self.layout, slots, self.waves)
        outputs = check_driver.generate(requests)
        for output in outputs:
            ids = self.layout.to_checkpoint_ids(output.tokens)
            output.tokens = [token_id - vocabulary.first_id for token_id in ids]
        rounding = self.rounding or ROUNDING[self.dtype]
        return check_guidance(decoder, vocabulary, requests, outputs, rounding)

    def wave_limit(self, draws: Sequence[Draw]) -> int:
        """As many as vLLM can process at once; the driver splits waves by their exact lengths."""
        limit = min(self.batch_size, MAX_WAVE)
        if not draws or not self.waves:
            return limit
        longest = max(map(len, self.prompt_ids(list(draws))))
        capacity = self.driver.capacity.max_images(longest, self.plan.branches, self.plan.slots)
        return max(1, min(limit, capacity))

    def requests(self, draws: Sequence[Draw], return_log_probabilities: bool = False) -> list[ImageRequest]:
        """The draws as requests to the driver."""
        from sar_eval.vllm_guided.driver import ImageRequest

        prompts, number, p, plan = self.prompt_ids(draws), len(draws), self.protocol, self.plan
        guidance = float(plan.weights[0][0]) if plan.weights[0] else 1.0
        weights = () if plan.weights == guidance_weights(guidance) else plan.weights
        return [
            ImageRequest(
                tuple(tuple(ids) for ids in prompts[n::number]),
                draw.seed,
                guidance,
                float(p.temperature),
                p.top_k,
                float(p.top_p),
                return_log_probabilities,
                float(p.min_p),
                weights,
                plan.forced,
            )
            for n, draw in enumerate(draws)
        ]

    def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave."""
        return self._decode_output(self.driver.generate(self.requests(draws)))

    def decode_with_log_probs(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave and their log-probabilities.

        A request of vLLM returns one number per token, so with guidance off there are no conditional ones
        unless they are the same, that is without top-k, top-p and min-p.
        """
        outputs = self.driver.generate(self.requests(draws, return_log_probabilities=True))
        last = 0 if self.plan.branches == 1 else 1
        p = self.protocol
        same = last == 0 and not p.top_k and p.top_p == 1 and not p.min_p
        return replace(
            self._decode_output(outputs),
            log_probs=self._log_probs(outputs, 0),
            conditional=self._log_probs(outputs, last) if last or same else None,
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Have vLLM load a trainer's weights into its running model (see `TokenEngine`).

        vLLM copies them into the memory that its CUDA graphs use, and packs or quantises them as at the
        start. What its prefix cache holds was computed with the old ones and is dropped.

        Raises:
            BadInput: vLLM's core is another process.
            DeviceLost: vLLM failed.
        """
        if not self.driver.in_process:
            raise BadInput(
                "vLLM's core runs in a process of its own, which takes no weights: leave out "
                "VLLM_ENABLE_V1_MULTIPROCESSING=1"
            )
        new = self.checkpoint.checked_weights(dict(weights), "the new weights")
        # With several GPUs the tensors go to other processes, on which this process's device means nothing.
        several = self.gpus(self.options) > 1
        self.driver.load_weights(
            [(name, tensor.detach().cpu() if several else tensor.detach()) for name, tensor in new.items()]
        )

    def _decode_output(self, outputs: Sequence[ImageOutput]) -> DecodeOutput:
        import torch

        from sar_eval.decoding.loop import DecodeOutput

        codes = [self._codes(output) for output in outputs]
        return DecodeOutput(
            torch.tensor([image_codes for image_codes, _ in codes]),
            torch.tensor([self._failed_code(output) for output in outputs]),
            torch.tensor([out_of_range for _, out_of_range in codes]),
            [self.plan.slots - 1] * len(outputs),
            [output.error for output in outputs],
        )

    def _codes(self, output: ImageOutput) -> tuple[list[int], int]:
        """Codes with text tokens as code 0, padded with 0 if unfinished; and the number of text tokens."""
        codebook_size, slots = self.layout.codebook_size, self.plan.code_slots
        sampled = [output.tokens[slot] for slot in slots if slot < len(output.tokens)]
        codes = [token if token < codebook_size else 0 for token in sampled]
        out_of_range = sum(token >= codebook_size for token in sampled)
        return codes + [0] * (self.image_tokens - len(codes)), out_of_range

    def _failed_code(self, output: ImageOutput) -> int:
        """Number of the code whose scores were not finite, -1 for none."""
        return -1 if output.failed_at < 0 else self.plan.code_slots.index(output.failed_at)

    def _log_probs(self, outputs: Sequence[ImageOutput], row: int) -> Tensor:
        """Log-probabilities `[B, N]` of one row of each image, NaN where it is unfinished."""
        import torch

        table = torch.full((len(outputs), self.image_tokens), torch.nan)
        for n, output in enumerate(outputs):
            every = output.log_probabilities[row] if row < len(output.log_probabilities) else []
            values = [every[slot] for slot in self.plan.code_slots if slot < len(every)]
            table[n, : len(values)] = torch.tensor(values)
        return table


def _refuse_stray_files(checkpoint: Checkpoint) -> None:
    """vLLM reads every file of weights of a folder without an index, whatever it belongs to."""
    files = checkpoint.weight_files
    suffix = files.paths[0].suffix
    stray = [name for name in files.unused if name.endswith(suffix)]
    if stray and files.index is None:
        raise BadInput(
            f"engine 'vllm' would also load {stray[0]} of {checkpoint.folder}, which is not of this "
            "checkpoint (vLLM reads all files of weights): move it away"
        )


def _check_draws() -> list[Draw]:
    from sar_eval.types import Prompt

    texts = ("a photo of a cat", "two red apples on a table", "a blue star above a ring", "a house")
    return [Draw(Prompt(f"check{n}", text), 0, n + 1) for n, text in enumerate(texts)]


ENGINE = VllmEngine
