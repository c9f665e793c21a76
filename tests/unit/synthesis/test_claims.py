"""Claims of blocks: one holder at a time, a lease by the store's clock, heirs of the dead."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sar_eval.storage.objects import open_store
from sar_eval.synthesis.claims import FOLDER, Claims

HOURS = 3600.0


def _age(folder: Path, seconds: float) -> None:
    """Let the store's clock have gone on since everything in it was written."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_one_of_many_gets_a_block(tmp_path: Path) -> None:
    workers = [Claims(open_store(tmp_path), f"w{n}") for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda claims: claims.take(7), workers)) == 1


def test_a_claim_lives_as_long_as_it_is_renewed(tmp_path: Path) -> None:
    other = Claims(open_store(tmp_path), "other", lease_s=0.6)
    with Claims(open_store(tmp_path), "holder", lease_s=0.6) as holder:
        assert holder.take(3)
        time.sleep(1.2)
        assert other.living(other.others().values()) == {3}
        assert not other.take(3)
    assert other.others() == {}


def test_the_claim_of_the_dead_has_one_heir(tmp_path: Path) -> None:
    dead = Claims(open_store(tmp_path), "dead")
    assert dead.take(3)
    heirs = [Claims(open_store(tmp_path), f"heir{n}") for n in range(8)]
    last = heirs[0].others()[3]
    assert heirs[0].living([last]) == {3}
    _age(tmp_path, HOURS)
    assert [claims.living([claims.others()[3]]) for claims in heirs] == [set()] * 8
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda claims: claims.take(3, last), heirs)) == 1
    assert dead.held == {3}  # it may live after all: then it draws what another draws, too
    newest = Claims(open_store(tmp_path), "late").others()[3]
    assert newest.generation == 1


@pytest.mark.parametrize("wrong", [-10 * HOURS, 10 * HOURS])
def test_a_wrong_clock_of_a_worker_changes_nothing(
    tmp_path: Path, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Claims(open_store(tmp_path), "holder").take(3)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + wrong)
    other = Claims(open_store(tmp_path), "other")
    assert other.living(other.others().values()) == {3}


def test_a_worker_started_again_goes_on_with_its_own_claims(tmp_path: Path) -> None:
    before, other = Claims(open_store(tmp_path), "task-7"), Claims(open_store(tmp_path), "task-8")
    assert before.take(1)
    assert before.take(5)
    assert other.take(9)
    again = Claims(open_store(tmp_path), "task-7")
    claims = again.others()
    other.release([9])  # between the listing and the reading
    assert again.adopt(claims.values()) == {1, 5} == again.held
    again.release([1, 5])
    assert list(open_store(tmp_path).list(f"{FOLDER}/")) == []


def test_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with Claims(store, "worker") as claims:
        assert claims.take(1)
        assert claims.living(Claims(store, "other").others().values()) == {1}
        assert len(list(store.list(f"{FOLDER}/"))) == 2
    assert list(store.list(f"{FOLDER}/")) == []
