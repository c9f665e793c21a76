"""Worker slots: on which devices, and with how many threads, workers compute."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sar_eval.errors import BadInput
from sar_eval.machine import cores
from sar_eval.protocols import WORKERS_PER_DEVICE


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """Where a worker computes: its index, device, CPU threads and extra environment variables."""

    index: int
    device: str = "cpu"
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


def make_slots(
    workers: int | None, devices: Sequence[str], threads: int = 1, gpus: int = 1
) -> list[WorkerSlot]:
    """One worker for each `gpus` GPUs, or on the CPU one a core (or `workers`), each with its own threads.

    On the CPU the number of threads does not follow from the number of workers: the same threads
    give the same sums, so 1, 2 and 4 workers draw the same images.

    Raises:
        BadInput: there are fewer GPUs than one worker needs.
    """
    if not devices:
        return [WorkerSlot(i, "cpu", threads) for i in range(workers or max(1, cores() // threads))]
    if len(devices) < gpus:
        raise BadInput(
            f"the engine takes {gpus} GPUs (tensor_parallel_size), {len(devices)} are to be used"
        )
    teams = [",".join(devices[i : i + gpus]) for i in range(0, len(devices) - gpus + 1, gpus)]
    return [
        WorkerSlot(i, "cuda", threads, {"CUDA_VISIBLE_DEVICES": teams[i % len(teams)]})
        for i in range(workers or len(teams))
    ]


def sharing_memory(slots: Sequence[WorkerSlot]) -> list[WorkerSlot]:
    """Slots whose environment says how many of them share their device's memory."""
    devices = [slot.environment.get("CUDA_VISIBLE_DEVICES", slot.device) for slot in slots]
    number = Counter(devices)
    return [
        replace(slot, environment={**slot.environment, WORKERS_PER_DEVICE: str(number[device])})
        for slot, device in zip(slots, devices, strict=True)
    ]


def limit_threads(slot: WorkerSlot) -> None:
    """Give what was loaded its share of the cores, if it uses torch (others need not load it for that)."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(slot.threads)
