"""What diffusers says of a pipeline's class: whether it draws an image of a text, what its call takes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sar_eval.documents import shorten
from sar_eval.errors import BadInput
from sar_eval.families.diffusers_folder import PipelineFolder

# What the engine itself says in a call, and how a user says it.
SET_BY_ENGINE: Mapping[str, str] = {
    "prompt": "the prompts' file",
    "negative_prompt": "--negative-prompt",
    "height": "--resolution, or --width and --height",
    "width": "--resolution, or --width and --height",
    "num_inference_steps": "--engine-option steps=N",
    "generator": "--seed",
    "num_images_per_prompt": "--images-per-prompt",
    "output_type": "--image-format",
    "return_dict": "nothing: it is fixed",
}
_NEEDED = ("prompt", "generator", "height", "width", "num_inference_steps", "output_type")
_VIDEO = ("num_frames", "num_videos_per_prompt", "video_length", "video", "frames")
_IMAGE_INPUTS = ("strength", "control_image", "mask_image", "input_images")
_WORDS_OF_OTHERS = ("Control", "Inpaint", "Img2Img", "Prior", "Pix2Pix", "ModelEditing", "Upscale")
# Those of AUTO_TEXT2IMAGE_PIPELINES_MAPPING (diffusers 0.42.1) whose call takes pictures and does without;
# importing that table imports every pipeline there is.
_IMAGE_IS_OPTIONAL = (
    *("Flux2KleinPipeline", "Flux2Pipeline", "FluxKontextPipeline", "GlmImagePipeline"),
    *("QwenImage21Pipeline", "ZImageOmniPipeline"),
)
# Parameters that take tensors, functions or objects: an option is a number, a text or a table of them.
_NO_OPTIONS = ("latents", "embeds", "callback", "image", "mask", "processor", "adapter", "output")


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What a pipeline's `__call__` takes.

    Attributes:
        steps: its default number of steps.
        guidance_name: the parameter of classifier-free guidance; "" if it has none.
        guidance: the default of that; 1 without one.
        takes_negative: whether it takes negative prompts.
        options: names of what `call` may say.
        max_sequence_length: default length of the text, None if the call does not say.
    """

    steps: int
    guidance_name: str
    guidance: float
    takes_negative: bool
    options: tuple[str, ...]
    max_sequence_length: int | None


def text_to_image_class(folder: PipelineFolder) -> Any:
    """The class of a pipeline that draws an image of a text.

    Raises:
        BadInput: it is none of diffusers', wants a picture, or draws something else; by its name.
    """
    import diffusers

    name = folder.class_name
    cls = _attribute(diffusers, name)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline)):
        raise BadInput(
            f"{folder.folder}: {name} is no pipeline of diffusers {diffusers.__version__}: code of a "
            "checkpoint is never run; a newer diffusers may have it"
        )
    if reason := _no_text_to_image(cls):
        raise BadInput(f"{folder.folder}: {name} is no text-to-image pipeline: {reason}")
    return cls


def component_class(folder: PipelineFolder, component: str) -> Any:
    """The class of a component.

    Raises:
        BadInput: it is neither diffusers' nor transformers' own.
    """
    library, name = folder.components[component]
    where = {"diffusers": "diffusers", "transformers": "transformers"}.get(library)
    try:
        # Some components are classes of a pipeline's own module in diffusers, as the safety checker.
        module = importlib.import_module(where or f"diffusers.pipelines.{library}")
    except ImportError:
        module = None
    cls = None if module is None else _attribute(module, name)
    if not isinstance(cls, type):
        raise BadInput(
            f"{folder.folder}: component {component} is {library}.{name}, neither of diffusers nor of "
            "transformers: code of a checkpoint is never run"
        )
    return cls


def call_facts(cls: Any) -> CallFacts:
    """Read a class's `__call__`."""
    parameters = inspect.signature(cls.__call__).parameters
    defaults = {name: p.default for name, p in parameters.items()}
    guidance = next((n for n in ("guidance_scale", "true_cfg_scale") if _is_number(defaults.get(n))), "")
    length = defaults.get("max_sequence_length")
    steps = defaults["num_inference_steps"]
    return CallFacts(
        steps=int(steps) if _is_number(steps) else 50,
        guidance_name=guidance,
        guidance=float(defaults[guidance]) if guidance else 1.0,
        takes_negative="negative_prompt" in parameters,
        options=tuple(name for name in parameters if _is_option(name, guidance)),
        max_sequence_length=length if isinstance(length, int) else None,
    )


def check_call(cls: Any, facts: CallFacts, call: Mapping[str, Any]) -> None:
    """Refuse arguments that a call does not take, or that the engine says itself.

    Raises:
        BadInput: naming the argument and those that are known.
    """
    for name, value in call.items():
        if name == facts.guidance_name:
            raise BadInput(f"call: {name} {shorten(value)} is the protocol's: say --guidance")
        if name in SET_BY_ENGINE:
            raise BadInput(f"call: {name} {shorten(value)} is not set there: say {SET_BY_ENGINE[name]}")
        if name not in facts.options:
            raise BadInput(f"call: {cls.__name__} takes no {name!r}; known are {_listed(facts.options)}")


def _no_text_to_image(cls: Any) -> str:
    """Why a class draws no image of a text alone, "" if it does."""
    parameters = inspect.signature(cls.__call__).parameters
    needless = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = (
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind not in needless and name not in ("self", "prompt")
    )
    image = ["image"] if "image" in parameters and cls.__name__ not in _IMAGE_IS_OPTIONAL else []
    reasons = (
        ("it draws videos ({})", (name for name in _VIDEO if name in parameters)),
        ("it wants {}", required),
        ("it wants a picture ({})", (name for name in _IMAGE_INPUTS if name in parameters)),
        ("it is one of those called {}", (word for word in _WORDS_OF_OTHERS if word in cls.__name__)),
        ("it wants a picture ({})", image),
        ("its call takes no {}", (name for name in _NEEDED if name not in parameters)),
    )
    return next((reason.format(name) for reason, names in reasons for name in names), "")


def _is_option(name: str, guidance: str) -> bool:
    taken = name in ("self", "args", "kwargs", guidance) or name in SET_BY_ENGINE
    return not taken and not any(word in name for word in _NO_OPTIONS)


def _attribute(module: Any, name: str) -> Any:
    """An attribute of a module that imports lazily; None if it has none, or a package of it is missing."""
    try:
        return getattr(module, name, None)
    except (ImportError, RuntimeError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
