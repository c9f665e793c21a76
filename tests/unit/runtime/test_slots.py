"""Worker slots: devices, threads, and how many workers share a device's memory."""

import pytest

from sar_eval.decoding import memory
from sar_eval.protocols import WORKERS_PER_DEVICE
from sar_eval.runtime.slots import make_slots, sharing_memory


def _sharing(workers: int | None, devices: list[str]) -> list[str]:
    return [slot.environment[WORKERS_PER_DEVICE] for slot in sharing_memory(make_slots(workers, devices))]


def test_workers_know_how_many_share_their_device() -> None:
    assert _sharing(3, []) == ["3", "3", "3"]
    assert _sharing(None, ["0", "1"]) == ["1", "1"]
    assert _sharing(3, ["0", "1"]) == ["2", "1", "2"]


def test_each_worker_plans_with_its_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 1200)
    monkeypatch.delenv(WORKERS_PER_DEVICE, raising=False)
    assert memory.free_bytes("cpu") == 1200
    monkeypatch.setenv(WORKERS_PER_DEVICE, "4")
    assert memory.free_bytes("cpu") == 300
