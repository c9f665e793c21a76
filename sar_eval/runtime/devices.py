"""Which GPUs there are, and which of them to use, without loading torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.metadata import version

from sar_eval.errors import BadInput


def gpus() -> list[str]:
    """Names of the NVIDIA devices."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)  # noqa: S607
    return [line.split(" (UUID")[0] for line in listed.stdout.splitlines() if line.startswith("GPU ")]


def torch_sees_gpus() -> bool:
    """Whether the installed torch is built for GPUs at all, by its version."""
    return not version("torch").endswith("+cpu")


def chosen_devices(devices: str | None) -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them; empty for the CPU.

    Args:
        devices: "0,1,3", or "cpu"; None for those that CUDA_VISIBLE_DEVICES leaves visible, or all.

    Raises:
        BadInput: it is no list of numbers or names.
    """
    if devices is None:
        return _visible_devices() if torch_sees_gpus() else []
    names = [] if devices == "cpu" else [name.strip() for name in devices.split(",")]
    if not all(name.isalnum() or "-" in name for name in names):
        raise BadInput(f"--devices is {devices!r}: numbers with commas between them, or cpu")
    return names


def _visible_devices() -> list[str]:
    """The cards of CUDA_VISIBLE_DEVICES, none where it is empty or starts with -1; else all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(i) for i in range(len(gpus()))]
    names = [name.strip() for name in visible.split(",")]
    return [] if names[0] in ("", "-1") else names
