"""The status of a set, from records and their times in a real store."""

import os
import time
from pathlib import Path

import pytest

from sar_eval.cli.synth_status import overall, ranges, status_json, status_lines
from sar_eval.storage import image_set as image_sets
from sar_eval.storage.image_set import ImageSet, object_name, record_name
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.status import ENOUGH, SetStatus, read_status, with_rate

NOW = 1_800_000_000.0
FATES = {"kept": 10, "filtered: hps > 0.27": 20, "outranked": 2}


def commit(
    image_set: ImageSet, block: int, attempt: int = 0, age: float | None = None, **more: int
) -> None:
    """A block of 8 prompts x 4 draws, committed so many seconds before `NOW`."""
    fates = FATES | {"kept": 10 - sum(more.values())} | more
    name = object_name("manifest", block, b"m", ".parquet")
    problems = (f"{8 * block}/0: out of ink",) if "failed" in more else ()
    record = BlockRecord(block, attempt, "", name, 8, 32, 0, 1, fates, problems, "cpu")
    assert image_set.commit(record, b"", b"m")
    if age is not None:
        path = Path(image_set.store.uri) / record_name(block, attempt)
        os.utime(path, (NOW - age, NOW - age))


@pytest.fixture
def image_set(tmp_path: Path) -> ImageSet:
    return ImageSet(open_store(tmp_path / "set"))


def read(image_set: ImageSet, blocks: int = 100, shares: int = 0) -> SetStatus:
    return read_status(image_set, blocks, 32 * blocks, ["hps > 0.27"], shares)


def test_a_set_that_only_began(image_set: ImageSet) -> None:
    found = read(image_set)
    assert (found.committed, found.left, found.complete) == (0, 100, False)
    assert found.last is found.pictures_per_second is found.seconds_left is found.share.value is None
    assert list(status_lines(found, NOW))[1:] == ["blocks   0 of 100 (0.0 %)", "draws    0 of 3200"]
    assert overall(found, NOW) == "0/100 blocks"
    assert status_json(found)["kept"] == {"draws": 0, "share": None, "low": None, "high": None}


def test_counts_speed_and_time_left(image_set: ImageSet) -> None:
    for block in range(10):
        commit(image_set, block, age=100 - 10 * block)
    found = read(image_set)
    assert (found.committed, found.drawn, found.share.hits) == (10, 320, 100)
    assert found.fates == {"kept": 100, "filtered: hps > 0.27": 200, "outranked": 20}
    assert found.pictures_per_second == pytest.approx(3.2)  # 9 blocks in 90 s
    assert found.seconds_left == pytest.approx(900)
    steps = [(step["name"], step["draws"]) for step in status_json(found)["funnel"]]
    assert steps[3:] == [("hps > 0.27", 120), ("best of its prompt", 100), ("kept", 100)]
    lines = list(status_lines(found, NOW))
    assert "speed    3.2 pictures/s, 15 min left" in lines
    assert any(line.startswith("kept     100, 31.2 % (") for line in lines)


def test_a_set_that_nobody_draws_has_no_time_left(image_set: ImageSet) -> None:
    for block in range(10):
        commit(image_set, block, age=86_400 - block)
    assert "speed    no block was committed for 23 h 59 min" in list(status_lines(read(image_set), NOW))


def test_a_start_after_a_pause_has_its_own_speed(image_set: ImageSet) -> None:
    for block in range(10):
        commit(image_set, block, age=90_000 - block)
    for block in range(10, 20):
        commit(image_set, block, age=200 - 20 * (block - 10))
    assert read(image_set).pictures_per_second == pytest.approx(32 / 20)


def test_blocks_that_take_long_have_a_speed(image_set: ImageSet) -> None:
    for block in range(ENOUGH + 2):
        commit(image_set, block, age=1800 * (ENOUGH + 2 - block))
    assert read(image_set).pictures_per_second == pytest.approx(32 / 1800)


def test_a_store_with_coarse_times_has_no_speed_yet() -> None:
    status = SetStatus("s3://bucket/set", 10, 320)
    assert with_rate(status, [(5.0, block) for block in range(9)], {}).blocks_per_second is None


def test_failures_are_named_until_they_are_drawn_again(image_set: ImageSet) -> None:
    for block in range(6):
        commit(image_set, block, **({"failed": 2, "unjudged": 1} if block in (1, 2, 4) else {}))
    found = read(image_set, blocks=6)
    assert (found.lacking, found.left, found.complete) == ((1, 2, 4), 0, False)
    lines = list(status_lines(found, NOW))
    assert "lacking  6 failed, 3 unjudged, in blocks 1-2, 4: the next start draws them again" in lines
    assert "problem  8/0: out of ink" in lines
    for block in (1, 2, 4):
        commit(image_set, block, attempt=1)
    found = read(image_set, blocks=6)
    assert found.complete
    assert found.drawn == 6 * 32
    assert not [
        line for line in status_lines(found, NOW) if line.startswith(("lacking", "problem", "speed"))
    ]


def test_incomplete_shares_are_named(image_set: ImageSet) -> None:
    for block in range(16):
        if block not in (3, 7, 9):
            commit(image_set, block, **({"failed": 1} if block == 2 else {}))
    found = read(image_set, blocks=16, shares=4)
    assert found.shares == {2: 1, 3: 1, 4: 2}  # share I has the blocks b with b % 4 == I - 1
    assert "shares   3 are incomplete: 2 (1 left), 3 (1 left), 4 (2 left)" in list(status_lines(found, NOW))
    assert status_json(found)["incomplete_shares"] == {"2": 1, "3": 1, "4": 2}


def test_done_records_that_a_ledger_holds_are_not_listed(
    image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_sets, "BLOCKS_PER_GROUP", 10)
    for block in range(26):
        commit(image_set, block, age=100 - block)
    before = read(image_set)
    assert image_set.write_ledgers(100) == 2
    listed, listing = [], type(image_set.store).list
    monkeypatch.setattr(
        type(image_set.store), "list", lambda self, prefix: listed.append(prefix) or listing(self, prefix)
    )
    assert read(image_set) == before  # the rate is that of the six in the last group; it is steady
    assert set(listed) == {"ledger/", "done/000002/"}


def test_a_clock_that_is_ahead_does_no_harm(image_set: ImageSet) -> None:
    for block in range(6):
        commit(image_set, block, age=-1000 - block)
    assert any(line.startswith("speed    ") for line in status_lines(read(image_set), NOW))


def test_ranges() -> None:
    assert ranges([]) == ""
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges(range(0, 60, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18 and 20 more"


def test_a_million_draws_are_read_in_under_two_seconds(image_set: ImageSet) -> None:
    """1,000,000 draws are 977 blocks of 256 prompts x 4; here with a record each and no ledger."""
    commit(image_set, 0)
    first = image_set.store.read(record_name(0, 0))
    for block in range(1, 977):
        path = Path(image_set.store.uri) / record_name(block, 0)
        path.write_bytes(
            first.replace(b'"block": 0', b'"block": %d' % block).replace(
                b"part-000000000", b"part-%09d" % block
            )
        )
    began = time.process_time()
    assert read(image_set, blocks=977).committed == 977
    assert time.process_time() - began < 2
