"""What engines that sample visual tokens have in common: prompts in, waves of draws, images out.

An engine of this kind says how a wave's tokens come about (`decode_tokens`); this file says which draws
make a wave, what is a failure, and when images are made: those of one wave while the next decodes.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from sar_eval.decoding.encode_images import AT_ONCE, check_format, make_images
from sar_eval.errors import BadInput, DeviceLost
from sar_eval.families.prompting import prompt_texts
from sar_eval.families.simplear import Checkpoint, find_checkpoint
from sar_eval.types import Draw, DrawProtocol, Generation

if TYPE_CHECKING:
    from sar_eval.decoding.loop import Decoded

Result = TypeVar("Result")
DTYPES = ("float32", "bfloat16", "float16")


class TokenEngine:
    """Base of the engines that draw with a checkpoint of ours."""

    version = ""
    # Options that no image depends on: they change how it is stored, or name files whose bytes are in the
    # checkpoint's digest.
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
        """Find and check the checkpoint; weights are loaded on entry.

        Raises:
            BadInput: the resolution does not fit the checkpoint, or `dtype` or format is unknown.
        """
        if dtype not in DTYPES:
            raise BadInput(f"unknown dtype {dtype!r}: {', '.join(DTYPES)}")
        check_format(image_format)
        self.checkpoint: Checkpoint = find_checkpoint(checkpoint, visual_tokenizer)
        self.protocol, self.device, self.dtype, self.batch_size = protocol, device, dtype, batch_size
        self.image_format = image_format
        self.side, rest = divmod(protocol.resolution, self.checkpoint.downsample)
        if rest or self.side < 1:
            raise BadInput(
                f"resolution {protocol.resolution} is no multiple of {self.checkpoint.downsample}, "
                f"the visual tokenizer's pixels a token"
            )
        self.steps = self.side**2
        # A block's texts are tokenized once, however often its waves are planned anew.
        self._ids = lru_cache(maxsize=2 * batch_size)(self._tokenize)
        if self.steps >= self.checkpoint.shape.positions:
            raise BadInput(
                f"resolution {protocol.resolution} takes {self.steps} visual tokens; the checkpoint "
                f"has {self.checkpoint.shape.positions} positions for prompt and image"
            )

    def __enter__(self) -> Self:
        from sar_eval.families.cosmos import VisualTokenizer

        # First, so that what plans with the free memory of the device finds it there.
        self.visual = VisualTokenizer(self.checkpoint.visual_folder, self.device)
        self.load()
        self.image_executor = ThreadPoolExecutor(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.image_executor.shutdown()
        self.unload()
        del self.visual, self.image_executor

    @cached_property
    def device_name(self) -> str:
        """What the device calls itself: "cpu", or the name of the card."""
        import torch

        return "cpu" if self.device == "cpu" else torch.cuda.get_device_name()

    def load(self) -> None:
        """Load the decoder."""
        raise NotImplementedError

    def unload(self) -> None:
        """Let go of the decoder."""
        raise NotImplementedError

    def decode_tokens(self, draws: Sequence[Draw]) -> Decoded:
        """The visual codes of a wave."""
        raise NotImplementedError

    def wave_limit(self, draws: Sequence[Draw]) -> int:
        """How many of these draws to decode at once."""
        del draws
        return self.batch_size

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """Draw in waves, in the order given; what cannot be drawn has an error instead of an image."""
        last: Future[list[Generation]] | None = None
        for images in self.begin(draws):
            if last is not None:
                yield from last.result()
            last = images
        if last is not None:
            yield from last.result()

    def begin(self, draws: Sequence[Draw]) -> Iterator[Future[list[Generation]]]:
        """The images of one wave after the other, as soon as its tokens are there.

        A thread makes the images; when the last wave is given, other draws may be begun.
        """
        told = {draw.key: self._too_long(draw) for draw in draws}
        yield _settled([Generation(d.key, d.seed, error=told[d.key]) for d in draws if told[d.key]])
        for wave, decoded, seconds in self._waves(deque(draw for draw in draws if not told[draw.key])):
            if isinstance(decoded, str):
                yield _settled([Generation(draw.key, draw.seed, error=decoded) for draw in wave])
            else:
                yield self.image_executor.submit(self._images, wave, decoded, seconds)

    def _waves(self, waiting: deque[Draw]) -> Iterator[tuple[list[Draw], Decoded | str, float]]:
        """Waves with their codes, or with the error of a single draw that does not fit in memory.

        Waves are of equal size, and half of it where memory runs out.
        """
        limit = self.wave_limit(waiting)
        while waiting:
            number = -(-len(waiting) // -(-len(waiting) // limit))
            wave = [waiting.popleft() for _ in range(number)]
            began = time.perf_counter()
            decoded = self._attempt(partial(self.decode_tokens, wave))
            if decoded is not None:
                yield wave, decoded, (time.perf_counter() - began) / number
            elif number > 1:
                waiting.extendleft(reversed(wave))
                limit = number // 2
            else:
                yield wave, f"out of memory for a single image on {self.device}", 0.0

    def _attempt(self, work: Callable[[], Result]) -> Result | None:
        """The work's result, or None if memory was not enough.

        Raises:
            DeviceLost: the GPU does not answer any more.
        """
        import torch

        from sar_eval.tensors.out_of_memory import is_out_of_memory

        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                self.after_out_of_memory()
                return None
            if self.device != "cpu" and isinstance(error, torch.AcceleratorError):
                raise DeviceLost(f"{self.device}: {str(error).splitlines()[0]}") from error
            raise

    def after_out_of_memory(self) -> None:
        """Let go of buffers that a smaller wave does without."""

    def _images(self, wave: list[Draw], decoded: Decoded, seconds: float) -> list[Generation]:
        import torch

        began = time.perf_counter()
        # A stream of its own: the next wave's forwards need not wait for these images.
        on_gpu = self.device != "cpu"
        with torch.cuda.stream(torch.cuda.Stream()) if on_gpu else contextlib.nullcontext():
            files = self._files(decoded)
        if files is None:
            error = f"out of memory while its tokens became pixels on {self.device}"
            return [Generation(draw.key, draw.seed, error=error) for draw in wave]
        seconds += (time.perf_counter() - began) / len(wave)
        return [self._generation(decoded, n, draw, files[n], seconds) for n, draw in enumerate(wave)]

    def _files(self, decoded: Decoded) -> list[bytes] | None:
        """Encoded images, made one by one where memory is short; None if even that is too much."""
        import torch

        threads = torch.get_num_threads()
        for at_once in (AT_ONCE, 1):
            setting = (self.visual, decoded.codes, self.side, self.image_format, threads, at_once)
            files = self._attempt(partial(make_images, *setting))
            if files is not None:
                return files
        return None

    def _generation(self, decoded: Decoded, n: int, draw: Draw, file: bytes, seconds: float) -> Generation:
        if decoded.errors and decoded.errors[n]:
            return Generation(draw.key, draw.seed, error=decoded.errors[n])
        fault = int(decoded.failed_at[n])
        if fault >= 0:
            error = f"the scores of visual token {fault} are no numbers (NaN or infinite)"
            return Generation(draw.key, draw.seed, error=error)
        return Generation(
            draw.key,
            draw.seed,
            tuple(decoded.codes[n].tolist()),
            file,
            seconds,
            out_of_range_tokens=int(decoded.outside[n]),
            provenance={"device": self.device_name, "wave_size": len(decoded.steps)},
            steps=decoded.steps[n],
        )

    def prompts(self, draws: Sequence[Draw]) -> list[list[int]]:
        """Token ids of the prompted rows, then (with guidance) of the negative rows."""
        texts = [prompt_texts(self.protocol, draw) for draw in draws]
        rows = [list(self._ids(prompt)) for prompt, _ in texts]
        if self.protocol.guidance != 1:
            rows += [list(self._ids(negative)) for _, negative in texts]
        return rows

    def _tokenize(self, text: str) -> tuple[int, ...]:
        ids, room = self.checkpoint.prompt_ids(text), self.checkpoint.shape.positions - self.steps
        return (*ids[: room - 1], ids[-1]) if len(ids) > room and self.protocol.truncate else tuple(ids)

    def _too_long(self, draw: Draw) -> str:
        longest = max(map(len, self.prompts([draw])))
        room = self.checkpoint.shape.positions - self.steps
        if longest <= room:
            return ""
        return (
            f"the prompt takes {longest} tokens, and {room} fit beside {self.steps} visual tokens: "
            "shorten it, or cut it with --truncate"
        )


def _settled(images: list[Generation]) -> Future[list[Generation]]:
    future: Future[list[Generation]] = Future()
    future.set_result(images)
    return future
