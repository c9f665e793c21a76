"""Which worker gets which block: drawn lazily, again first, alone where one is suspect."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sar_eval.runtime.local import LocalRuntime
from sar_eval.runtime.queue import MAX_LOSSES, MAX_TRIES, PREFETCH, BlockQueue, Worker
from sar_eval.runtime.slots import WorkerSlot, make_slots
from tests.unit.runtime.test_local import Squares


def _worker(index: int = 0) -> Worker:
    return Worker(WorkerSlot(index), ready=True)


def test_a_worker_gets_one_block_to_prefetch_if_there_are_enough_for_all() -> None:
    queue, first, second = BlockQueue(range(5)), _worker(0), _worker(1)
    assert queue.assign(first, 2) == [0, 1]
    assert queue.assign(second, 2) == [2, 3]
    assert len(first.blocks) == PREFETCH
    first.blocks.popleft()
    assert queue.assign(first, 2) == []  # the last one is for whoever is idle first
    first.blocks.popleft()
    assert queue.assign(first, 2) == [4]


def test_blocks_are_drawn_from_their_source_as_they_are_needed() -> None:
    drawn: list[int] = []

    def source() -> Iterator[int]:
        for block in range(1000):
            drawn.append(block)
            yield block

    queue = BlockQueue(source())
    assert queue.ahead(3) == 3
    assert queue.assign(_worker(), 3) == [0, 1]
    assert drawn == [0, 1, 2, 3]
    assert queue.ahead(2) == 2
    assert len(drawn) == 4


def test_a_source_may_depend_on_what_is_done(tmp_path: Path) -> None:
    done: set[int] = set()

    def source() -> Iterator[int]:
        for block in range(10_000):
            if len(done) >= 4:
                return
            yield block

    for result in LocalRuntime(make_slots(1, [])).run(Squares(tmp_path), source()):
        done.add(result.block)
    assert done == set(range(len(done)))
    assert 4 <= len(done) <= 4 + PREFETCH + 1


@pytest.mark.parametrize(("blamed", "most"), [(True, MAX_TRIES), (False, MAX_LOSSES)])
def test_what_is_taken_back_goes_first_and_alone_until_it_is_given_up(blamed: bool, most: int) -> None:
    queue, worker = BlockQueue(range(8)), _worker()
    assert queue.assign(worker, 1) == [0, 1]
    assert queue.take_back(worker, 2, "killed", blamed=blamed) == []
    for _ in range(most - 2):
        assert queue.assign(worker, 1) == [1]
        assert queue.take_back(worker, 1, "killed", blamed=blamed) == []
    assert queue.assign(worker, 1) == [1]
    [given_up] = queue.take_back(worker, 1, "killed", blamed=blamed)
    assert (given_up.block, given_up.error) == (1, f"given up after {most} tries: killed")
    assert queue.assign(worker, 1) == [0]
    worker.blocks.clear()
    assert queue.assign(worker, 1) == [2, 3]


def test_what_machines_are_blamed_for_does_not_add_to_what_the_block_is_blamed_for() -> None:
    queue, worker = BlockQueue([7]), _worker()
    for blamed in (True, False, True, False, False):
        queue.assign(worker, 1)
        assert queue.take_back(worker, 1, "gone", blamed=blamed) == []
    queue.assign(worker, 1)
    assert queue.take_back(worker, 1, "gone")[0].error == "given up after 3 tries: gone"
