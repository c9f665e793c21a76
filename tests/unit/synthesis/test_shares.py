"""Shares of a set: each block once, whoever dies; the slow are helped; what was seen is by names alone."""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sar_eval.storage.image_set import BLOCKS_PER_GROUP, record_name
from sar_eval.storage.objects import ObjectStore, open_store
from sar_eval.synthesis import shares
from sar_eval.synthesis.claims import Claims
from sar_eval.synthesis.committed import CommittedBlocks
from sar_eval.synthesis.shares import Share, incomplete_shares
from sar_eval.types import Shard


class Worker:
    """Takes blocks one by one; drawing is writing a done-record."""

    def __init__(self, folder: Path, index: int, of: int, blocks: int, **more: object) -> None:
        self.store, self.blocks = open_store(folder), blocks
        self.claims = Claims(self.store, more.pop("holder", f"w{index}-{os.urandom(4).hex()}"), lease_s=1e6)
        progress = CommittedBlocks(self.store, blocks)
        self.share = Share(Shard(index, of), blocks, progress, self.claims, **more)
        self.given: Iterator[int] = self.share.blocks()

    def take(self) -> int | None:
        return next(self.given, None)

    def draw(self, block: int) -> bool:
        """Whether this worker's record is the one that counts."""
        created = commit(self.store, block)
        self.share.done(block)
        return created

    def run(self) -> list[int]:
        blocks = []
        while (block := self.take()) is not None:
            assert self.draw(block), f"{block} was drawn twice"
            blocks.append(block)
        return blocks


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "REFRESH_S", -1.0)


def commit(store: ObjectStore, block: int, attempt: int = 0) -> bool:
    return store.create(record_name(block, attempt), json.dumps({"block": block}).encode())


def finished(folder: Path, blocks: int) -> set[int]:
    return CommittedBlocks(open_store(folder), blocks).finished()


def test_a_worker_takes_its_share_in_order_and_then_steals_from_the_fullest_end(tmp_path: Path) -> None:
    first, second = (Worker(tmp_path, index, 3, 30) for index in (1, 2))
    for _ in range(6):
        first.draw(first.take())
    own = [second.take() for _ in range(10)]
    assert own == list(range(1, 30, 3))
    for block in own:
        second.draw(block)
    in_work = first.take()  # 18; 21, 24 and 27 are left of share 1, all ten of share 3
    stolen = second.run()
    left = list(range(2, 30, 3))
    for block in stolen[:6]:
        assert block in left[len(left) // 2 :]
        left.remove(block)
    assert sorted(stolen) == sorted([21, 24, 27, *range(2, 30, 3)])
    assert first.take() is None
    first.draw(in_work)
    assert finished(tmp_path, 30) == set(range(30))


@pytest.mark.parametrize("refresh_s", [-1.0, 1e6])
@pytest.mark.parametrize("seed", range(2))
def test_workers_in_any_order_draw_each_block_once(
    tmp_path: Path, seed: int, refresh_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "REFRESH_S", refresh_s)
    chance = random.Random(seed)
    workers = [Worker(tmp_path, index, 5, 41) for index in range(1, 6)]
    speeds = [chance.random() for _ in workers]
    drawn: Counter[int] = Counter()
    in_work: list[tuple[Worker, int]] = []
    while workers or in_work:
        if in_work and chance.random() < 0.5:
            worker, block = in_work.pop(chance.randrange(len(in_work)))
            assert worker.draw(block), f"{block} was drawn twice"
            drawn[block] += 1
        elif workers:
            worker = chance.choices(workers, speeds[: len(workers)])[0]
            if (taken := worker.take()) is None:
                workers.remove(worker)
            else:
                in_work.append((worker, taken))
    assert drawn == Counter(range(41))
    assert [info.name for info in open_store(tmp_path).list("claims/") if "clock" not in info.name] == []


def test_what_a_dead_worker_had_in_work_is_taken_when_its_lease_is_over(tmp_path: Path) -> None:
    dead, heir = Worker(tmp_path, 1, 2, 8), Worker(tmp_path, 2, 2, 8)
    assert [dead.take(), dead.take()] == [0, 2]
    assert sorted(heir.run()) == [1, 3, 4, 5, 6, 7]
    for path in tmp_path.glob("claims/*-0"):
        os.utime(path, (0, 0))
    assert heir.share.wait()
    heir.given = heir.share.blocks()
    assert sorted(heir.run()) == [0, 2]
    assert not heir.share.wait()
    assert len(list(tmp_path.glob("claims/0*"))) == 2  # of the dead
    assert heir.share.left() == (0, 0)
    assert list(tmp_path.glob("claims/0*")) == []


def test_a_task_queued_again_goes_on_with_what_it_had_in_work(tmp_path: Path) -> None:
    killed = Worker(tmp_path, 1, 2, 8, holder="slurm-17")
    assert [killed.take(), killed.take()] == [0, 2]
    killed.draw(0)
    again = Worker(tmp_path, 1, 2, 8, holder="slurm-17")
    assert [again.take(), again.take()] == [2, 4]


def test_waiting_ends_when_all_is_done_or_nobody_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "POLL_S", 0.05)
    busy, idle = Worker(tmp_path, 1, 2, 4), Worker(tmp_path, 2, 2, 4)
    block = busy.take()
    idle.run()
    idle.claims.lease_s = busy.claims.lease_s = 0.2
    busy.claims.__enter__()
    assert idle.share.wait() is False
    busy.draw(block)
    idle.claims.lease_s = 1e6
    assert idle.share.wait() is False
    busy.claims.__exit__(None, None, None)


def test_given_back_claims_are_taken_at_once(tmp_path: Path) -> None:
    other = Worker(tmp_path, 2, 2, 4)
    with Worker(tmp_path, 1, 2, 4).claims as claims:
        assert claims.take(0)
        assert sorted(other.run()) == [1, 2, 3]
    assert other.share.wait()


def test_a_stopped_share_gives_out_nothing_more(tmp_path: Path) -> None:
    asked: list[bool] = []
    worker = Worker(tmp_path, 1, 2, 8, is_stopped=lambda: bool(asked))
    worker.draw(worker.take())
    asked.append(True)
    assert worker.take() is None
    assert not worker.share.wait()
    assert worker.share.left() == (3, 7)


def test_blocks_that_lack_draws_are_drawn_again_by_their_owner_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for block in range(6):
        commit(store, block)
    lacking = [2, 3]
    second = Worker(tmp_path, 2, 2, 8, again=lacking)
    assert [second.take() for _ in range(4)] == [3, 7, 6, None]
    first = Worker(tmp_path, 1, 2, 8, again=lacking)
    assert [first.take() for _ in range(2)] == [2, None]


def test_committed_blocks_are_found_by_names(tmp_path: Path) -> None:
    store, blocks = open_store(tmp_path), 2 * BLOCKS_PER_GROUP + 3
    store.write(f"ledger/000000-{'0' * 16}.jsonl", b"not read")
    for block in range(2 * BLOCKS_PER_GROUP, blocks):
        commit(store, block)
    committed = CommittedBlocks(store, blocks)
    expected = set(range(BLOCKS_PER_GROUP)) | {2000, 2001, 2002}
    assert committed.finished() == expected
    commit(store, 1500)
    commit(store, 1500, attempt=1)
    assert committed.finished() == expected | {1500}


def test_incomplete_shares_are_named_from_one() -> None:
    assert incomplete_shares({0, 2, 4, 1}, 6, 2) == [2]
    assert incomplete_shares(set(), 3, 8) == [1, 2, 3]
    assert incomplete_shares(set(range(6)), 6, 4) == []
