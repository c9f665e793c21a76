"""Checks of this machine and installation: what works, what is missing, how to mend it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sar_eval.discover import unknown
from sar_eval.errors import BadInput, MissingExtra, SarEvalError
from sar_eval.families.diffusers_folder import find_pipeline, is_pipeline
from sar_eval.families.locate import demo_names
from sar_eval.families.recognise import find_checkpoint
from sar_eval.machine import cores
from sar_eval.recipe import load_recipe, recipe_names
from sar_eval.runtime.devices import HIDDEN, gpus, hidden_cards, torch_sees_gpus
from sar_eval.suites.locate import missing_suite_hint, read_suite
from sar_eval.tensors.published_weights import find_weights
from sar_eval.vllm_guided.start import installed_version

REQUIRED = ("torch", "numpy", "pyarrow", "pillow", "opencv-python-headless", "tokenizers", "safetensors")
EXTRAS = {
    "open_clip_torch": "geneval",
    "torchvision": "geneval",
    "scipy": "geneval",
    "transformers": "train",
    "accelerate": "train",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked thing; `ok` is None where nothing is wrong but something optional is absent."""

    name: str
    ok: bool | None
    detail: str


def examine(folder: Path) -> Iterator[Finding]:
    """All checks; `folder` is where runs would go."""
    yield Finding("python", True, f"{platform.python_version()} on {platform.machine()}, {cores()} cores")
    yield from (_package(name, None) for name in REQUIRED)
    yield from (_package(name, extra) for name, extra in EXTRAS.items())
    yield _vllm()
    yield _gpu()
    yield detector_self_test(gpus() if torch_sees_gpus() else [])
    yield _disk(folder)
    yield from (_checkpoint(name) for name in demo_names())
    yield from (_recipe(name) for name in recipe_names())


def examine_judge(
    benchmark: str, weights: Path | None, reference: Path | None, device: str
) -> Iterator[Finding]:
    """Checks of the weights of a benchmark's judge, and of its answers to a reference table.

    Args:
        benchmark: only "dpg" has such checks.
        weights: folder of the original files; None for the fetched ones.
        reference: see `networks.mplug.check.read_table`.
        device: of torch, for the answers.

    Raises:
        UnknownName: another benchmark.
    """
    if benchmark != "dpg":
        raise unknown("judge to check", benchmark, ["dpg"])
    from sar_eval.networks.mplug.check import check_answers, check_weights
    from sar_eval.networks.mplug.vqa import MplugVqa

    try:
        folder = weights or find_weights("mplug").parent
        checks = [Finding(*check) for check in check_weights(folder)]
        yield from checks
        if any(check.ok is False for check in checks):
            return
        model = MplugVqa(folder, device=device)
        yield Finding(
            "network", True, f"{sum(p.numel() for p in model.network.parameters()):,} weights loaded"
        )
        if reference:
            yield from (Finding(*check) for check in check_answers(model, reference))
    except (SarEvalError, RuntimeError, AssertionError) as error:  # torch's, of a device that is not there
        yield Finding("dpg", False, str(error))


def _package(name: str, extra: str | None) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        wanted = f"sar-eval[{extra}]" if extra else "sar-eval"
        return Finding(name, None if extra else False, f"not installed: pip install '{wanted}'")


def _vllm() -> Finding:
    try:
        return Finding("vllm", True, installed_version())
    except MissingExtra as error:
        return Finding("vllm", None, str(error))
    except BadInput as error:
        return Finding("vllm", False, str(error))


def _gpu() -> Finding:
    found = gpus()
    if found and not torch_sees_gpus():
        return Finding(
            "gpu", None, f"{', '.join(found)}, but torch {version('torch')} has no CUDA: CPU only"
        )
    hidden = f" ({hidden_cards()} on the PCI bus: {HIDDEN})" if not found and hidden_cards() else ""
    none = f"none found: work goes to the CPU{hidden}"
    return Finding("gpu", True if found else None, ", ".join(found) or none)


def detector_self_test(gpu_names: list[str], device: str = "cuda") -> Finding:
    """Compare GenEval's detector on `device` with the CPU, if there is a GPU and the weights are here."""
    name = "detector self-test"
    if not gpu_names:
        return Finding(name, None, "no GPU: the CPU in float32 is what others are compared with")
    try:
        weights = find_weights("mask2former")
        from sar_eval.networks.mask2former.self_test import compare_devices

        found = compare_devices(weights, device)
    except (SarEvalError, ImportError, RuntimeError) as error:
        return Finding(name, None if isinstance(error, SarEvalError) else False, str(error))
    difference = f"logits differ by {max(found.classes, found.masks):.1e} of the greatest"
    if found.ok:
        return Finding(name, True, f"agrees with the CPU: {difference}")
    return Finding(name, False, f"{difference}: do not judge on this card; another torch build may mend it")


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    return Finding("disk", free > 1, f"{free:.0f} GB free for {folder}")


def _checkpoint(name: str) -> Finding:
    try:
        if is_pipeline(name):
            return Finding(name, True, f"a pipeline of diffusers, {find_pipeline(name).class_name}")
        found = find_checkpoint(name)
        return Finding(name, True, f"{found.text_vocab_size} text ids + {found.codebook_size} visual codes")
    except SarEvalError as error:
        return Finding(name, False, str(error))


def _recipe(name: str) -> Finding:
    try:
        recipe = load_recipe(name)
        if recipe.suite is None:
            return Finding(f"benchmark {name}", True, "prompts of the images, or --suite")
        if missing := missing_suite_hint(recipe.suite):
            return Finding(f"benchmark {name}", None, missing)
        return Finding(f"benchmark {name}", True, f"{len(read_suite(recipe.suite).prompts)} prompts")
    except SarEvalError as error:
        return Finding(f"benchmark {name}", False, str(error))
