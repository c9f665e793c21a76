"""Worker processes: blocks once each, deaths survived, errors reported."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, DeviceLost, Incomplete, SarEvalError
from sar_eval.runtime.local import LocalRuntime
from sar_eval.runtime.runtimes import BlockResult
from sar_eval.runtime.slots import WorkerSlot, make_slots


@dataclass(frozen=True)
class Squares:
    """Squares block numbers; misbehaves in the way its `fault` says, for block 3."""

    folder: Path
    fault: str = ""

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], int]]:
        if self.fault == "start":
            raise RuntimeError("no device")
        if self.fault == "die-starting":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "die-starting-once" and not (self.folder / "started").exists():
            (self.folder / "started").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "start-bad":
            raise BadInput("no such weights")
        yield self._do

    def _do(self, block: int) -> int:
        before = len(list(self.folder.glob(f"{block}-*")))
        (self.folder / f"{block}-{before}").touch()
        if block == 3:
            self._misbehave(before)
        if self.fault == "die-after":
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return block * block

    def _misbehave(self, before: int) -> None:
        if (self.fault == "die-once" and before == 0) or self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "lost" and before == 0:
            raise DeviceLost("cuda: an illegal memory access was encountered")
        if self.fault == "raise":
            raise ZeroDivisionError("three")
        if self.fault == "stop":
            raise BadInput("unreadable weights")
        if self.fault == "hang":
            time.sleep(600)


@dataclass(frozen=True)
class Stored(Squares):
    """The same in a tenth of a second, but a thread takes a quarter of a second to store it, or fails."""

    @contextmanager
    def open(self, slot: WorkerSlot) -> Iterator[Callable[[int], Future[int]]]:
        with ThreadPoolExecutor(1) as executor:
            yield lambda block: executor.submit(self._store, self._begin(block))

    def _begin(self, block: int) -> int:
        time.sleep(0.1)
        (self.folder / f"{block}-begun-{time.monotonic_ns()}").touch()
        return block

    def _store(self, block: int) -> int:
        time.sleep(0.25)
        (self.folder / f"{block}-stored-{time.monotonic_ns()}").touch()
        if block == 3 and self.fault == "raise":
            raise ZeroDivisionError("three")
        if block == 3 and self.fault == "lost" and len(list(self.folder.glob("3-stored-*"))) < 2:
            raise DeviceLost("cuda: an illegal memory access was encountered")
        if block == 3 and self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return block * block


def _times(folder: Path, what: str) -> dict[int, int]:
    """When each block was begun or stored for the last time, in nanoseconds."""
    found = sorted(path.name.split("-") for path in folder.glob(f"*-{what}-*"))
    return {int(block): int(when) for block, _, when in found}


def test_the_next_block_is_begun_while_the_last_one_is_stored(tmp_path: Path) -> None:
    results = _run(Stored(tmp_path), workers=1)
    assert {block: r.result for block, r in results.items()} == {i: i * i for i in range(6)}
    begun, stored = _times(tmp_path, "begun"), _times(tmp_path, "stored")
    ahead = [block for block in range(5) if begun[block + 1] < stored[block]]
    assert ahead == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        pytest.param("raise", 3, marks=pytest.mark.slow),
        pytest.param("lost", 2, marks=pytest.mark.slow),
        pytest.param("die", 3, marks=pytest.mark.slow),
    ],
)
def test_what_breaks_while_it_is_stored_is_blamed_on_its_block_alone(
    tmp_path: Path, fault: str, tries: int
) -> None:
    results = _run(Stored(tmp_path, fault))
    assert len(list(tmp_path.glob("3-stored-*"))) == tries
    assert (results[3].error is None) == (fault == "lost")
    assert [r.result for b, r in sorted(results.items()) if b != 3] == [0, 1, 4, 16, 25]


def _run(task: Squares, workers: int = 2) -> dict[int, BlockResult]:
    results = list(LocalRuntime(make_slots(workers, [])).run(task, range(6)))
    assert len(results) == 6
    return {result.block: result for result in results}


@pytest.mark.parametrize("workers", [1, 3])
def test_every_block_is_done_once(tmp_path: Path, workers: int) -> None:
    results = _run(Squares(tmp_path), workers)
    assert {block: r.result for block, r in results.items()} == {i: i * i for i in range(6)}
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("fault", ["die-once", "lost"])
def test_a_block_of_a_dead_worker_or_device_is_redone_by_another(tmp_path: Path, fault: str) -> None:
    results = _run(Squares(tmp_path, fault))
    assert {r.result for r in results.values()} == {0, 1, 4, 9, 16, 25}
    assert len(list(tmp_path.glob("3-*"))) == 2


def test_a_block_that_kills_three_workers_is_given_up(tmp_path: Path) -> None:
    results = _run(Squares(tmp_path, "die"))
    assert results[3].error is not None
    assert "given up after 3 tries" in results[3].error
    assert "SIGKILL" in results[3].error
    assert sum(r.error is None for r in results.values()) == 5
    assert len(list(tmp_path.glob("3-*"))) == 3


def test_a_worker_that_dies_while_it_starts_is_replaced(tmp_path: Path) -> None:
    results = _run(Squares(tmp_path, "die-starting-once"))
    assert {r.result for r in results.values()} == {0, 1, 4, 9, 16, 25}


def test_workers_that_never_start_end_the_run_incomplete(tmp_path: Path) -> None:
    with pytest.raises(Incomplete, match=r"could not start, 3 times; .*SIGKILL"):
        list(LocalRuntime(make_slots(2, [])).run(Squares(tmp_path, "die-starting"), range(6)))


@pytest.mark.slow
def test_a_worker_that_dies_after_its_last_block_is_no_fault(tmp_path: Path) -> None:
    results = LocalRuntime(make_slots(2, [])).run(Squares(tmp_path, "die-after"), range(2))
    first = next(results)
    time.sleep(2)  # meanwhile the other worker has sent its result and died
    [second] = results
    assert {first.block: first.result, second.block: second.result} == {0: 0, 1: 1}
    assert first.error is None
    assert second.error is None


def test_a_block_that_raises_is_given_up_without_new_workers(tmp_path: Path) -> None:
    assert _run(Squares(tmp_path, "raise"))[3].error == "given up after 3 tries: ZeroDivisionError: three"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("stop", "unreadable weights"),
        ("start", "could not start.*no device"),
        ("start-bad", "no such weights"),
    ],
)
def test_what_more_tries_cannot_mend_ends_the_run(
    tmp_path: Path, fault: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SarEvalError, match=message):
        list(LocalRuntime(make_slots(2, [])).run(Squares(tmp_path, fault), range(6)))
    capfd.readouterr()


def test_leaving_early_ends_the_workers(tmp_path: Path) -> None:
    results = LocalRuntime(make_slots(2, [])).run(Squares(tmp_path, "hang"), range(6))
    next(results)
    results.close()
    assert not multiprocessing.active_children()


def test_ctrl_c_stops_even_if_its_exception_is_lost(tmp_path: Path) -> None:
    def drop_the_exception() -> int:
        count = 0
        for _ in LocalRuntime(make_slots(1, [])).run(Squares(tmp_path), range(50)):
            count += 1
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            except KeyboardInterrupt:
                continue  # as Python does in a finalizer
        return count

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        drop_the_exception()
    assert signal.getsignal(signal.SIGINT) is before
    assert not multiprocessing.active_children()


def test_a_gpu_worker_sees_one_card() -> None:
    slots = make_slots(None, ["0", "3"])
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "3"]
    assert {slot.device for slot in slots} == {"cuda"}
    assert [p.device for p in make_slots(3, [])] == ["cpu"] * 3


def test_a_worker_may_need_several_cards() -> None:
    slots = make_slots(None, ["0", "1", "2", "3", "4"], gpus=2)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0,1", "2,3"]
    with pytest.raises(BadInput, match=r"takes 4 GPUs .*, 2 are to be used"):
        make_slots(None, ["0", "1"], gpus=4)
