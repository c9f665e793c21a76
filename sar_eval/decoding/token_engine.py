"""Base class of engines that sample visual tokens: prompts, waves of draws, images.

A subclass decodes the tokens of a wave (`decode_tokens`); this class plans the waves, handles failures and
has a thread encode the images of one wave while the next wave is decoded.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from sar_eval.decoding.devices import check_card, check_device
from sar_eval.decoding.encode_images import DECODE_BATCH, check_format, images_from_codes
from sar_eval.decoding.token_grid import token_grid
from sar_eval.decoding.waves import none_if_out_of_memory, one_ahead, waves
from sar_eval.errors import BadInput, MissingExtra
from sar_eval.families.family import EncodesPrompts, TokenCheckpoint
from sar_eval.families.image_plan import ImagePlan
from sar_eval.families.prompting import prompt_texts
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import Draw, DrawProtocol, Generation

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.decoding.loop import DecodeOutput
    from sar_eval.decoding.rollouts import Rollout
    from sar_eval.families.family import Row

Result = TypeVar("Result")
# Makes of a wave's draws, their generations and their tokens (None if it has none) what a caller wants.
Finish = Callable[[list[Draw], list[Generation], "DecodeOutput | None"], list[Result]]


class TokenEngine:
    """Base of the engines for checkpoints of `families`."""

    version = ""
    # Options that do not change an image: they change how it is stored, or name files whose bytes are part
    # of the checkpoint's digest.
    speed_options: ClassVar[tuple[str, ...]] = ("image_format", "visual_tokenizer")

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
    ) -> None:
        """Find and check the checkpoint; weights are loaded by `__enter__`.

        Raises:
            BadInput: the size or another value of the protocol does not fit the checkpoint; device,
                `dtype` or format is unknown; or it is of a family that this engine does not draw with.
        """
        check_device(device, dtype)
        check_format(image_format)
        self.checkpoint: TokenCheckpoint = find_checkpoint(checkpoint, visual_tokenizer)
        self.check_checkpoint()
        self.checkpoint.check_protocol(protocol)
        self.protocol, self.device, self.dtype, self.batch_size = protocol, device, dtype, batch_size
        self.image_format = image_format
        pixels = self.checkpoint.downsample
        self.grid = token_grid(protocol, pixels, "the visual tokenizer's pixels per token")
        self.plan: ImagePlan = self.checkpoint.plan(protocol, self.grid)
        self.image_tokens = self.plan.codes
        positions = self.checkpoint.decoder_config.max_position_embeddings
        if self.plan.slots >= positions:
            raise BadInput(
                f"resolution {protocol.written_size} takes {self.plan.slots} visual tokens; the checkpoint "
                f"has {positions} positions for prompt and image"
            )

    def check_checkpoint(self) -> None:
        """Refuse, once it is found, a checkpoint that this engine does not draw with.

        Raises:
            BadInput: it does not, and the message says why.
        """

    @staticmethod
    def option_names() -> list[str]:
        """Names of the keyword arguments that engines of this kind have in common."""
        parameters = inspect.signature(TokenEngine.__init__).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]

    def __enter__(self) -> Self:
        check_card(self.device)
        # Before the decoder, whose planning then sees the memory that is left.
        self.image_decoder = self.checkpoint.load_image_decoder(self.device)
        if isinstance(self.checkpoint, EncodesPrompts):
            self.checkpoint.load_text_encoder(self.device)
        self.load()
        self.image_executor = ThreadPoolExecutor(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.image_executor.shutdown()
        self.unload()
        if isinstance(self.checkpoint, EncodesPrompts):
            self.checkpoint.unload_text_encoder()
        del self.image_decoder, self.image_executor

    @cached_property
    def device_name(self) -> str:
        """The name of the GPU, or `cpu`."""
        import torch

        return "cpu" if self.device == "cpu" else torch.cuda.get_device_name(self.device)

    def load(self) -> None:
        """Load the decoder."""
        raise NotImplementedError

    def unload(self) -> None:
        """Release the decoder."""
        raise NotImplementedError

    def decode_tokens(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave."""
        raise NotImplementedError

    def decode_with_log_probs(self, draws: Sequence[Draw]) -> DecodeOutput:
        """Decode the visual codes of a wave and their log-probabilities.

        Raises:
            BadInput: this engine has none.
        """
        del draws
        raise BadInput(f"{type(self).__name__} gives no log-probabilities: train with native or vllm")

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Replace the decoder's weights, between two waves, by those of a trainer.

        Args:
            weights: by the Hugging Face names of the checkpoint, all of them, of any dtype and on any
                device. They are collected before the first is copied.

        Raises:
            BadInput: a tensor is missing, unknown, or of another shape, and nothing was copied; or this
                engine cannot replace its weights.
        """
        del weights
        raise BadInput(f"{type(self).__name__} cannot replace its weights: train with native or vllm")

    def wave_limit(self, draws: Sequence[Draw]) -> int:
        """Maximum number of these draws in one wave."""
        del draws
        return self.batch_size

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """Draw in waves, in the given order; a draw that fails has an error instead of an image."""
        return one_ahead(self.begin(draws))

    def begin(self, draws: Sequence[Draw]) -> Iterator[Future[list[Generation]]]:
        """Yield a future of the generations of each wave, as soon as its tokens are decoded.

        A thread encodes the images; after the last wave other draws may be begun.
        """
        return self._begin(draws, self.decode_tokens, lambda wave, generations, output: generations)

    def roll(self, draws: Sequence[Draw]) -> Iterator[Future[list[Rollout]]]:
        """As `begin`, with the log-probabilities of the tokens, for a policy-gradient trainer.

        The tokens are those that `begin` draws.

        Raises:
            BadInput: this engine, or one with these options, has no log-probabilities.
        """
        # Here, not in the thread of the images: a text tokenizer is not to be used by two threads.
        ids = self.prompt_ids(draws)
        prompts = {draw.key: tuple(map(tuple, ids[n :: len(draws)])) for n, draw in enumerate(draws)}
        return self._begin(draws, self.decode_with_log_probs, partial(_rollouts, prompts))

    def _begin(
        self,
        draws: Sequence[Draw],
        decode: Callable[[Sequence[Draw]], DecodeOutput],
        finish: Finish[Result],
    ) -> Iterator[Future[list[Result]]]:
        """Yield a future of what `finish` makes of each wave."""
        errors = {draw.key: self._length_error(draw) for draw in draws}
        too_long = [draw for draw in draws if errors[draw.key]]
        yield _completed(finish(too_long, [_failed(draw, errors[draw.key]) for draw in too_long], None))
        for wave, output, seconds in self._waves(deque(d for d in draws if not errors[d.key]), decode):
            if isinstance(output, str):
                yield _completed(finish(wave, [_failed(draw, output) for draw in wave], None))
            else:
                yield self.image_executor.submit(self._finished, wave, output, seconds, finish)

    def _finished(
        self, wave: list[Draw], output: DecodeOutput, seconds: float, finish: Finish[Result]
    ) -> list[Result]:
        return finish(wave, self._generations(wave, output, seconds), output)

    def _waves(
        self, waiting: deque[Draw], decode: Callable[[Sequence[Draw]], DecodeOutput]
    ) -> Iterator[tuple[list[Draw], DecodeOutput | str, float]]:
        """Waves with their output and seconds per draw, or with the error of a draw too large for memory.

        Waves are of equal size, which is halved when memory runs out.
        """
        limit = self.wave_limit(waiting)
        return waves(
            waiting, limit, lambda wave: self._none_if_out_of_memory(partial(decode, wave)), self.device
        )

    def _none_if_out_of_memory(self, function: Callable[[], Result]) -> Result | None:
        """The function's result, or None if it ran out of memory.

        Raises:
            DeviceLost: the GPU failed.
        """
        return none_if_out_of_memory(function, self.device, self.release_buffers)

    def release_buffers(self) -> None:
        """Release buffers that a smaller wave does not need."""

    def _generations(self, wave: list[Draw], output: DecodeOutput, seconds: float) -> list[Generation]:
        import torch

        started = time.perf_counter()
        # A separate stream, so that the next wave's forwards do not wait for these images.
        on_gpu = self.device != "cpu"
        with torch.cuda.stream(torch.cuda.Stream(self.device)) if on_gpu else contextlib.nullcontext():
            files = self._encode(output.codes)
        if files is None:
            error = f"out of memory while its tokens were decoded to pixels on {self.device}"
            return [_failed(draw, error) for draw in wave]
        seconds += (time.perf_counter() - started) / len(wave)
        return [self._generation(output, n, draw, files[n], seconds) for n, draw in enumerate(wave)]

    def _encode(self, codes: Tensor) -> list[bytes | None] | None:
        """Encoded images, decoded one by one if memory runs out; None if that does not fit either."""
        import torch

        threads, grids = torch.get_num_threads(), codes.view(len(codes), *self.grid)
        for batch_size in (DECODE_BATCH, 1):
            arguments = (self.image_decoder, grids, self.image_format, threads, batch_size)
            files = self._none_if_out_of_memory(partial(images_from_codes, *arguments))
            if files is not None:
                return files
        return None

    def _generation(
        self, output: DecodeOutput, n: int, draw: Draw, image: bytes | None, seconds: float
    ) -> Generation:
        if output.errors and output.errors[n]:
            return _failed(draw, output.errors[n])
        failed_at = int(output.failed_at[n])
        if failed_at >= 0:
            return _failed(draw, f"the scores of visual token {failed_at} are NaN or infinite")
        if image is None:
            return _failed(draw, "the image decoder gave NaN or infinite values for its tokens")
        return Generation(
            draw.key,
            draw.seed,
            tuple(output.codes[n].tolist()),
            image,
            seconds,
            out_of_range_tokens=int(output.out_of_range[n]),
            provenance={"device": self.device_name, "wave_size": len(output.steps)},
            steps=output.steps[n],
        )

    def branch_rows(self, draws: Sequence[Draw]) -> list[Row]:
        """What stands before the pictures: all draws' prompted rows, then those of each other branch."""
        by_draw = [self._cached_branches(*prompt_texts(self.protocol, draw)) for draw in draws]
        return [row for branch in zip(*by_draw, strict=True) for row in branch]

    def prompt_ids(self, draws: Sequence[Draw]) -> list[list[int]]:
        """Token ids of `branch_rows`.

        Raises:
            BadInput: the family's rows are embeddings.
        """
        rows = self.branch_rows(draws)
        ids = [list(row) for row in rows if isinstance(row, Sequence)]
        if len(ids) < len(rows):
            raise BadInput(f"prompts of {self.checkpoint.family} are embeddings, which have no token ids")
        return ids

    @property
    def max_prompt_length(self) -> int:
        """Tokens that a prompt may have beside the image."""
        return self.checkpoint.decoder_config.max_position_embeddings - self.plan.slots

    @cached_property
    def _cached_branches(self) -> Callable[[str, str], tuple[Row, ...]]:
        """Branches with a cache: a block's texts are tokenized once, however often waves are planned."""

        def branches(prompt: str, negative: str) -> tuple[Row, ...]:
            return self.checkpoint.branches(prompt, negative, self.protocol, self.grid)

        return lru_cache(maxsize=2 * self.batch_size)(branches)

    def _length_error(self, draw: Draw) -> str:
        """Why a draw's prompt cannot be used, "" if it can."""
        try:
            longest, limit = max(map(len, self.branch_rows([draw]))), self.max_prompt_length
        except MissingExtra:
            raise
        except BadInput as error:  # its family cannot read this text, which is no reason to stop others
            return str(error)
        if longest <= limit:
            return ""
        return (
            f"the prompt takes {longest} tokens, and {limit} fit beside {self.plan.slots} visual tokens: "
            f"shorten it{', or cut it with --truncate' if self._can_truncate() else ''}"
        )

    def _can_truncate(self) -> bool:
        """Whether the family knows how to cut a prompt."""
        try:
            self.checkpoint.check_protocol(replace(self.protocol, truncate=True))
        except BadInput:
            return False
        return True


def _completed(results: list[Result]) -> Future[list[Result]]:
    future: Future[list[Result]] = Future()
    future.set_result(results)
    return future


def _failed(draw: Draw, error: str) -> Generation:
    return Generation(draw.key, draw.seed, error=error)


def _rollouts(
    prompts: Mapping[str, tuple[tuple[int, ...], ...]],
    wave: list[Draw],
    generations: list[Generation],
    output: DecodeOutput | None,
) -> list[Rollout]:
    """The generations of a wave with its log-probabilities, which a failed draw has not."""
    from sar_eval.decoding.rollouts import Rollout

    rollouts = []
    for n, (draw, generation) in enumerate(zip(wave, generations, strict=True)):
        rollout = Rollout(draw, generation, prompts[draw.key])
        if output is not None and output.log_probs is not None and generation.error is None:
            rollout = replace(rollout, log_probs=output.log_probs[n].numpy())
            if output.conditional is not None:
                rollout = replace(rollout, conditional=output.conditional[n].numpy())
        rollouts.append(rollout)
    return rollouts
