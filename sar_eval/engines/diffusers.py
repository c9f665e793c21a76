"""Any text-to-image pipeline of diffusers, by folder or hub name: batches, one seed a draw."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from sar_eval.decoding.devices import check_card, check_device
from sar_eval.decoding.encode_images import check_format, encode
from sar_eval.decoding.token_grid import token_grid
from sar_eval.decoding.waves import none_if_out_of_memory, one_ahead, waves
from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.families.diffusers_folder import PipelineFolder, find_pipeline
from sar_eval.families.prompting import prompt_texts
from sar_eval.options import check_whole_number
from sar_eval.types import CheckpointFacts, Draw, DrawProtocol, Generation, Json

if TYPE_CHECKING:
    from sar_eval.families.diffusers_class import CallFacts

OWNER = "engine 'diffusers'"
PROTOCOL_KEYS = ("prefix", "prefixes", "negative_prompt", "guidance", "resolution", "width", "height")
_UNCHECKED = "--engine-option without=safety_checker"
# Fields of a protocol that belong to sampling tokens, and what they are where none are sampled.
TOKEN_FIELDS: Mapping[str, Json] = {
    "temperature": 1,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "full_vocab": False,
    "template": "",
}


@dataclass(frozen=True, slots=True)
class DrawnWave:
    """Pictures `[B, H, W, 3]` in [0, 1], and of each what is to be known.

    Attributes:
        pixels: the pictures.
        flagged: whether the safety checker blackened it.
        more: what its provenance says beside that of the wave.
    """

    pixels: NDArray[np.float32]
    flagged: Sequence[bool]
    more: Sequence[Mapping[str, Json]]


class DiffusersEngine:
    """Draws with a pipeline's own call; each draw has a generator on the CPU, seeded by its seed.

    A picture is then that of its prompt and seed alone up to the rounding of a batch: 1e-6 in float32
    (docs/engines.md). `protocol.guidance` is the call's `guidance_scale`.
    """

    version = ""
    speed_options: ClassVar[tuple[str, ...]] = ("image_format",)

    def __init__(
        self,
        checkpoint: str,
        protocol: DrawProtocol,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 64,
        steps: int = 0,
        scheduler: str = "",
        variant: str = "",
        without: str = "",
        call: Mapping[str, Json] | None = None,
        image_format: str = "png",
    ) -> None:
        """Find and check the pipeline; weights are loaded by `__enter__`.

        Args:
            checkpoint: a folder with `model_index.json`, or a hub name.
            protocol: how to draw.
            device: cpu, cuda or cuda:NUMBER.
            dtype: of weights and computation.
            batch_size: most draws of one call.
            steps: of the scheduler; 0 for the call's default.
            scheduler: a scheduler's class, made of the configuration of the pipeline's; "" for its own.
            variant: of the weights, as "fp16".
            without: names of components to do without, separated by commas.
            call: further arguments of the pipeline's call, by name.
            image_format: png or webp.

        Raises:
            MissingExtra: diffusers is not installed.
            BadInput: a pipeline that draws no image of a text, or a value that it does not take.
        """
        self.version = f"1 (diffusers {_installed().__version__})"
        check_device(device, dtype)
        check_format(image_format)
        check_whole_number("steps", steps, OWNER, minimum=0, maximum=10_000)
        self.protocol, self.device, self.dtype, self.limit = protocol, device, dtype, batch_size
        if call is not None and not isinstance(call, Mapping):
            raise BadInput(f"call {call!r} of {OWNER}: a table, as call.max_sequence_length=256")
        self.image_format, self.scheduler, self.call = image_format, scheduler, dict(call or {})
        self.folder, self.cls, self.facts = _find(checkpoint, {"variant": variant, "without": without})
        self.steps = steps or self.facts.steps
        self._check()

    @staticmethod
    def find(checkpoint: str, options: Mapping[str, Json]) -> CheckpointFacts:
        """What a run needs to know of a pipeline; loads nothing.

        Raises:
            MissingExtra, BadInput, UnknownName, Incomplete: as the constructor.
        """
        folder, _, facts = _find(checkpoint, options)
        return CheckpointFacts(
            name=folder.name,
            digest=folder.digest,
            native_resolution=folder.native_resolution,
            downsample=folder.downsample,
            protocol_keys=PROTOCOL_KEYS,
            recipe_keys=(),
            # The bare prompt, no negative prompt, and the guidance that the call has by default.
            protocol={"name": "diffusers", "guidance": facts.guidance},
            notes=folder.notes,
        )

    def _check(self) -> None:
        """Refuse what the call would refuse, or not heed.

        Raises:
            BadInput: naming it.
        """
        from sar_eval.families.diffusers_class import check_call, component_class

        check_call(self.cls, self.facts, self.call)
        for component in self.folder.components:
            component_class(self.folder, component)
        if self.scheduler:
            _scheduler_class(self.scheduler)
            if "scheduler" not in self.folder.components:
                name = self.cls.__name__
                raise BadInput(f"scheduler {self.scheduler!r}: {name} has no component of that name")
        self._check_protocol()

    def _check_protocol(self) -> None:
        name, protocol = self.cls.__name__, self.protocol
        for field, unused in TOKEN_FIELDS.items():
            if getattr(protocol, field) != unused:
                raise BadInput(f"{field} {getattr(protocol, field)}: {name} samples no tokens")
        if not self.facts.guidance_name and protocol.guidance != 1:
            raise BadInput(f"guidance {protocol.guidance}: the call of {name} takes no guidance_scale")
        if (protocol.negative_prompt or protocol.prefixes) and not self.facts.takes_negative:
            raise BadInput(f"the call of {name} takes no negative prompt: --negative-prompt ''")
        token_grid(protocol, self.folder.downsample, f"the pixels of a latent of {name}")

    def __enter__(self) -> Self:
        from sar_eval.families.diffusers_load import load_pipeline

        check_card(self.device)
        self.pipeline = load_pipeline(self.folder, self.cls, self.device, self.dtype)
        if self.scheduler:
            made = _scheduler_class(self.scheduler).from_config(self.pipeline.scheduler.config)
            self.pipeline.scheduler = made
        self.executor = ThreadPoolExecutor(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.executor.shutdown()
        del self.pipeline, self.executor
        self._release()

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        """Draw in waves, in the given order; a draw that fails has an error instead of an image."""
        return one_ahead(self.begin(draws))

    def begin(self, draws: Sequence[Draw]) -> Iterator[Future[list[Generation]]]:
        """Yield a future of the generations of each wave; a thread encodes its images meanwhile."""
        for wave, drawn, seconds in waves(deque(draws), self.limit, self._draw_if_it_fits, self.device):
            yield self.executor.submit(self._generations, wave, drawn, seconds)

    def _draw_if_it_fits(self, wave: list[Draw]) -> DrawnWave | None:
        drawn = none_if_out_of_memory(partial(self.draw_wave, wave), self.device, self._release)
        if drawn is None:
            self.limit = max(1, len(wave) // 2)  # the next block begins with what fits
        return drawn

    def _release(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.empty_cache()

    def draw_wave(self, wave: Sequence[Draw]) -> DrawnWave:
        """Draw a wave by one call of the pipeline.

        Raises:
            BadInput: the pipeline refuses the call, or gives something else than a picture a draw.
        """
        import torch

        texts = [prompt_texts(self.protocol, draw) for draw in wave]
        arguments = self.arguments | {"prompt": [prompt for prompt, _ in texts]}
        more = [self._cut_off(prompt) for prompt, _ in texts]
        if self.protocol.negative_prompt or self.protocol.prefixes:
            arguments["negative_prompt"] = [negative for _, negative in texts]
        # One each, on the CPU: the noise is then the same in any batch and on any device.
        generators = [torch.Generator("cpu").manual_seed(draw.seed) for draw in wave]
        name = self.cls.__name__
        try:
            with torch.inference_mode():
                output = self.pipeline(**arguments, generator=generators)
        except (ValueError, TypeError) as error:
            raise BadInput(f"{name} refuses the call: {' '.join(str(error).split())}") from error
        images = getattr(output, "images", None)
        if not isinstance(images, np.ndarray) or images.shape[::3] != (len(wave), 3):
            raise BadInput(f"{name} gives no {len(wave)} RGB pictures for {len(wave)} prompts")
        return DrawnWave(images, _flags(output, len(wave)), more)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments of every call."""
        facts, (height, width) = self.facts, self.protocol.size
        guidance = {facts.guidance_name: self.protocol.guidance} if facts.guidance_name else {}
        fixed = {"height": height, "width": width, "num_inference_steps": self.steps, "output_type": "np"}
        return {**self.call, **fixed, **guidance}

    def _generations(self, wave: list[Draw], drawn: DrawnWave | str, seconds: float) -> list[Generation]:
        if isinstance(drawn, str):
            return [Generation(draw.key, draw.seed, error=drawn) for draw in wave]
        import torch

        shared = {"wave_size": len(wave), **self.provenance}
        make = partial(self._generation, seconds, shared)
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:  # compression releases the GIL
            return list(pool.map(make, wave, drawn.pixels, drawn.flagged, drawn.more))

    def _generation(
        self,
        seconds: float,
        shared: Mapping[str, Json],
        draw: Draw,
        pixels: NDArray[np.float32],
        flagged: bool,
        more: Mapping[str, Json],
    ) -> Generation:
        if flagged:
            error = f"the safety checker of {self.cls.__name__} blackened the picture"
            return Generation(draw.key, draw.seed, error=f"{error}: to draw without it, {_UNCHECKED}")
        if not np.isfinite(pixels).all():
            return Generation(draw.key, draw.seed, error="the pipeline gave NaN or infinite pixels")
        return Generation(
            draw.key,
            draw.seed,
            image=encode(to_bytes(pixels), self.image_format),
            elapsed_s=seconds,
            provenance={**shared, **more},
            steps=self.steps,
        )

    def _cut_off(self, text: str) -> dict[str, Json]:
        """Which of the pipeline's tokenizers cut the prompt's end off, as CLIP's does after 77 tokens."""
        length = self.max_sequence_length
        names = [name for name in self.folder.components if name.startswith("tokenizer")]
        tokenizers = {name: getattr(self.pipeline, name) for name in names}
        cut = [
            name
            for name, tokenizer in tokenizers.items()
            if len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
            > min(tokenizer.model_max_length, length)
        ]
        return {"truncated_by": cut} if cut else {}

    @property
    def max_sequence_length(self) -> float:
        """Tokens of a text that the call reads, where it says so."""
        said = self.call.get("max_sequence_length", self.facts.max_sequence_length)
        return float(said) if isinstance(said, int) else float("inf")

    @cached_property
    def provenance(self) -> dict[str, Json]:
        """What made the pictures, with the defaults of the call that were not said."""
        import torch

        device = "cpu" if self.device == "cpu" else torch.cuda.get_device_name(self.device)
        said = {name: self.arguments[name] for name in (self.facts.guidance_name,) if name}
        return {
            "device": device,
            "pipeline": self.cls.__name__,
            "scheduler": self.scheduler or self.folder.components.get("scheduler", ("", ""))[1],
            "num_inference_steps": self.steps,
            **said,
        }


def to_bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels in [0, 1] as 0 to 255, rounded as diffusers' `numpy_to_pil` does."""
    return np.asarray((pixels * 255).round().clip(0, 255), dtype=np.uint8)


def _installed() -> Any:
    for package in ("transformers", "diffusers"):
        found = need(package, extra="diffusers", what=OWNER)
    return found


def _find(checkpoint: str, options: Mapping[str, Json]) -> tuple[PipelineFolder, Any, CallFacts]:
    """The pipeline's files, its class and what its call takes."""
    _installed()
    from sar_eval.families.diffusers_class import call_facts, text_to_image_class

    left_out = tuple(filter(None, map(str.strip, str(options.get("without", "")).split(","))))
    folder = find_pipeline(checkpoint, str(options.get("variant", "")), left_out)
    cls = text_to_image_class(folder)
    return folder, cls, call_facts(cls)


def _scheduler_class(name: str) -> Any:
    import diffusers

    cls = getattr(diffusers, name, None)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin)):
        raise BadInput(
            f"scheduler {name!r} is none of diffusers {diffusers.__version__}, as EulerDiscreteScheduler"
        )
    return cls


def _flags(output: Any, number: int) -> Sequence[bool]:
    """What the safety checker says of each picture; pipelines have two names for it."""
    for name in ("nsfw_content_detected", "nsfw_detected"):
        if (found := getattr(output, name, None)) is not None:
            return [bool(flag) for flag in found]
    return [False] * number


ENGINE = DiffusersEngine
