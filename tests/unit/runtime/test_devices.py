"""Which GPUs are there and which are used: without nvidia-smi, and in every spelling of the variable."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.runtime import devices
from sar_eval.runtime.devices import chosen_devices, unused_gpus


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets which cards the driver and the PCI bus know, and which torch is installed."""

    def install(known: int, torch: str = "2.9.0+cu128", on_the_bus: int = 0) -> None:
        monkeypatch.setattr(devices, "gpus", lambda: ["a card"] * known)
        monkeypatch.setattr(devices, "hidden_cards", lambda: on_the_bus)
        monkeypatch.setattr(devices, "version", lambda name: torch)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
MIG = "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/2"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("none", []),
        ("void", []),
        ("1", ["1"]),
        ("0, 1", ["0", "1"]),
        (" 0,1 ", ["0", "1"]),
        ("0,1,", ["0", "1"]),
        (",0", []),
        ("0,,1", ["0"]),
        ("0,-1,1", ["0"]),
        ("0,0,1", ["0", "1"]),
        ("00,+1", ["0", "1"]),
        ("2,x,1", ["2"]),
        ("GPU-a, 3", ["GPU-a", "3"]),
        ("GPU-8932f937", ["GPU-8932f937"]),
        (UUID, [UUID]),
        (
            f"{MIG},MIG-41b35014-7a5c-5a4b-b9e0-fd1a6b2fdd1b",
            [MIG, "MIG-41b35014-7a5c-5a4b-b9e0-fd1a6b2fdd1b"],
        ),
        ("'1'", ["1"]),
    ],
)
def test_devices_are_those_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, cards: Callable[..., None], visible: str | None, expected: list[str]
) -> None:
    cards(2)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert chosen_devices(None) == expected


def test_a_torch_without_gpus_takes_the_cpu(cards: Callable[..., None]) -> None:
    cards(4, torch="2.9.0+cpu")
    assert chosen_devices(None) == []


def test_devices_that_were_asked_for() -> None:
    assert chosen_devices("0, 3") == ["0", "3"]
    assert chosen_devices("cuda:1") == ["1"]
    assert chosen_devices(UUID) == [UUID]
    assert chosen_devices("cpu") == chosen_devices("CPU") == []


@pytest.mark.parametrize("asked", ["0,/x", "", "0,", "-1", "gpu", "all"])
def test_devices_that_are_none(asked: str) -> None:
    with pytest.raises(BadInput, match=f"--devices is {asked!r}"):
        chosen_devices(asked)


@pytest.mark.parametrize(
    ("known", "torch", "on_the_bus", "note"),
    [
        (0, "2.9.0+cu128", 0, ""),
        (1, "2.9.0+cu128", 1, ""),
        (1, "2.9.0+cpu", 1, "a card: torch 2.9.0+cpu is built for the CPU alone"),
        (0, "2.9.0+cu128", 2, "this machine has 2 NVIDIA cards: no card is visible in here"),
        (0, "2.9.0+cpu", 2, ""),
    ],
)
def test_a_cpu_that_nobody_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch, cards: Callable[..., None], known, torch, on_the_bus, note
) -> None:
    cards(known, torch, on_the_bus)
    told = unused_gpus(None)
    assert (note in told) if note else told == ""
    assert unused_gpus("cpu") == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unused_gpus(None) == ""


def _without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)


class _Nvml:
    """The driver's library with two cards, one of which does not say its name."""

    def __init__(self, name: str) -> None:
        assert name == "libnvidia-ml.so.1"

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name == "nvmlDeviceGetCount_v2":
            return lambda count: setattr(count._obj, "value", 2) or 0
        if name == "nvmlDeviceGetHandleByIndex_v2":
            return lambda index, handle: setattr(handle._obj, "value", index + 1) or 0
        if name == "nvmlDeviceGetName":
            return lambda handle, text, size: setattr(text, "value", b"NVIDIA H200") or handle.value - 1
        return lambda: 0


def test_cards_without_nvidia_smi_are_found_by_the_drivers_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", _Nvml)
    monkeypatch.setenv("PATH", "/nowhere")
    assert devices.gpus() == ["GPU 0: NVIDIA H200", "GPU 1"]


def test_nvidia_smi_is_asked_where_there_is_no_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _without_nvml(monkeypatch)
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A100 (UUID: GPU-1)'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert devices.gpus() == ["GPU 0: NVIDIA A100"]


def test_cards_that_only_the_kernel_knows(tmp_path: Path) -> None:
    (tmp_path / "proc/driver/nvidia/gpus/0000:3b:00.0").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/gpus/0000:3b:00.0/information").write_text(
        "Model: \t NVIDIA L4\nIRQ: 5\n"
    )
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert devices._from_proc(tmp_path) == ["GPU 0: NVIDIA L4"]
    assert devices._from_dev(tmp_path) == ["GPU 0", "GPU 2", "GPU 10"]
    for number, (vendor, kind) in enumerate(
        [("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]
    ):
        folder = tmp_path / "sys/bus/pci/devices" / str(number)
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    assert devices.hidden_cards(tmp_path) == 1
