"""Which GPUs there are, and which of them to use, without loading torch."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from sar_eval.errors import BadInput

QUERY_TIMEOUT_S = 30  # nvidia-smi may take seconds, and hangs where a card has failed
NVIDIA = "0x10de"  # PCI vendor
NAMED = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]+", re.IGNORECASE)
ORDINAL = re.compile(r"\+?(\d+)")
HIDDEN = "no card is visible in here: start the container with its GPUs (--gpus all), or load the driver"


def gpus() -> list[str]:
    """Names of the NVIDIA devices that the driver offers; a container may lack `nvidia-smi`."""
    return _from_nvml() or _from_nvidia_smi() or _from_proc() or _from_dev()


def _from_nvml() -> list[str]:
    """From the driver's own library."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        count = ctypes.c_uint()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return []
        names = [_nvml_name(nvml, index) for index in range(count.value)]
        nvml.nvmlShutdown()
    except (OSError, AttributeError):  # not installed, or an old one
        return []
    return names


def _nvml_name(nvml: ctypes.CDLL, index: int) -> str:
    handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    failed = nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    if failed or nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name))):
        return f"GPU {index}"
    return f"GPU {index}: {name.value.decode(errors='replace')}"


def _from_nvidia_smi() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=QUERY_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split(" (UUID")[0] for line in listed.stdout.splitlines() if line.startswith("GPU ")]


def _from_proc(root: Path = Path("/")) -> list[str]:
    names = []
    for number, path in enumerate(sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))):
        lines = path.read_text(errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
        names.append(f"GPU {number}: {models[0]}" if models else f"GPU {number}")
    return names


def _from_dev(root: Path = Path("/")) -> list[str]:
    numbers = [path.name.removeprefix("nvidia") for path in (root / "dev").glob("nvidia[0-9]*")]
    return [f"GPU {number}" for number in sorted(map(int, filter(str.isdigit, numbers)))]


def hidden_cards(root: Path = Path("/")) -> int:
    """NVIDIA display controllers on the PCI bus, whether or not their driver is here."""
    found = 0
    for path in (root / "sys/bus/pci/devices").glob("*/vendor"):
        try:
            kind = (path.parent / "class").read_text()
            found += path.read_text().strip() == NVIDIA and kind.startswith("0x03")
        except OSError:
            continue
    return found


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
    words = [] if devices.strip().lower() == "cpu" else devices.split(",")
    names = [word.strip().removeprefix("cuda:") for word in words]
    if not all(name.isdecimal() or NAMED.fullmatch(name) for name in names):
        raise BadInput(f"--devices is {devices!r}: numbers with commas between them, or cpu")
    return names


def unused_gpus(devices: str | None) -> str:
    """Why the CPU is taken though this machine has a GPU, and nobody asked for that; "" if it is not so."""
    if devices is not None or os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return ""
    found = gpus()
    if found and not torch_sees_gpus():
        why = f"torch {version('torch')} is built for the CPU alone: install a CUDA build of it"
        return f"the CPU is used though there is {', '.join(found)}: {why}, or say --devices cpu"
    if not found and torch_sees_gpus() and (number := hidden_cards()):
        return (
            f"the CPU is used though this machine has {number} NVIDIA cards: {HIDDEN}, or say --devices cpu"
        )
    return ""


def _visible_devices() -> list[str]:
    """The cards of CUDA_VISIBLE_DEVICES as CUDA reads it: up to the first that is none, each once."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(i) for i in range(len(gpus()))]
    names: dict[str, None] = {}
    for word in visible.split(","):
        name = _device_name(word.strip().strip("\"'"))
        if name is None:
            break
        names[name] = None
    return list(names)


def _device_name(word: str) -> str | None:
    """A card by number or UUID (or its beginning); None for "", -1, NoDevFiles and the like."""
    if NAMED.fullmatch(word):
        return word
    ordinal = ORDINAL.fullmatch(word)
    return str(int(ordinal[1])) if ordinal else None
