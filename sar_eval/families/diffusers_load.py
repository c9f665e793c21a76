"""Load a pipeline of diffusers: safetensors alone, no code of the checkpoint, every tensor in its place."""

from __future__ import annotations

import inspect
from typing import Any

from sar_eval.errors import BadInput, SarEvalError
from sar_eval.families.diffusers_class import component_class
from sar_eval.families.diffusers_folder import PipelineFolder
from sar_eval.tensors.out_of_memory import is_out_of_memory

# Buffers that older files hold and newer classes compute.
_COMPUTED_BUFFERS = ("position_ids", "inv_freq")


def load_pipeline(folder: PipelineFolder, cls: Any, device: str, dtype: str) -> Any:
    """Load a pipeline onto a device.

    Args:
        folder: its files.
        cls: its class, one of diffusers'.
        device: where to.
        dtype: name of torch's dtype of all weights.

    Raises:
        BadInput: a file is unreadable, or a tensor is missing, foreign or of another shape.
    """
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()  # workers share one terminal
    # What it warns of is refused here, an error of the draw, or in its provenance.
    diffusers.utils.logging.set_verbosity_error()
    models = {name: _load(folder, name, getattr(torch, dtype)) for name in folder.weights}
    # Where a watermark is drawn if a package for it happens to be installed, pixels depended on that.
    accepts = inspect.signature(cls.__init__).parameters
    unmarked = {"add_watermarker": False} if "add_watermarker" in accepts else {}
    try:
        pipeline = cls.from_pretrained(
            str(folder.folder),
            **dict.fromkeys(folder.absent),
            **models,
            **unmarked,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise _failed(folder, cls.__name__, error) from error
    pipeline.set_progress_bar_config(disable=True)
    vae: Any = getattr(pipeline, "vae", None)
    if hasattr(vae, "enable_slicing"):
        vae.enable_slicing()  # a picture at a time: the largest buffers are its, and nothing is slower
    return pipeline.to(device)


def _load(folder: PipelineFolder, component: str, dtype: Any) -> Any:
    """One component with weights; transformers and diffusers both say which tensors did not fit."""
    cls, path = component_class(folder, component), folder.folder / component
    names = [file.name for file in folder.weights[component]]
    variant = folder.variant if any(f".{folder.variant}" in name for name in names) else ""
    try:
        model, info = cls.from_pretrained(
            str(path),
            variant=variant or None,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except SarEvalError:
        raise
    except Exception as error:  # what two libraries and safetensors raise of files is of many classes
        if is_out_of_memory(error):
            raise
        raise _failed(folder, f"component {component} ({cls.__name__})", error) from error
    _check_tensors(f"{path} ({cls.__name__})", info)
    return model


def _check_tensors(where: str, info: Any) -> None:
    """Refuse what the library would only warn about: weights that were not loaded stay random.

    Raises:
        BadInput: naming a tensor.
    """
    if missing := sorted(info.get("missing_keys", ())):
        raise BadInput(f"{where} has no tensor {missing[0]!r}{_more(missing)}, which the network needs")
    if mismatched := sorted(map(str, info.get("mismatched_keys", ()))):
        raise BadInput(f"{where}: tensor {mismatched[0]}{_more(mismatched)} is of another shape")
    unexpected = [n for n in info.get("unexpected_keys", ()) if not n.endswith(_COMPUTED_BUFFERS)]
    if unexpected := sorted(unexpected):
        raise BadInput(
            f"{where} has the tensor {unexpected[0]!r}{_more(unexpected)}, which the network does not have"
        )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if names[1:] else ""


def _failed(folder: PipelineFolder, what: str, error: Exception) -> BadInput:
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return BadInput(f"{folder.folder} cannot be loaded as {what}: {why[:500]}")
