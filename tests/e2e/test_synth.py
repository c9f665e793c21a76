"""Sets drawn by real workers: the same bytes however it is done, and what becomes of what goes wrong."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, Incomplete, SpecMismatch
from sar_eval.runtime.local import LocalRuntime
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.synthesis.begin import begin_set, stored_spec
from sar_eval.synthesis.driver import HOPELESS, Driver
from sar_eval.synthesis.monitor import SynthEvent
from tests.synth_sets import contents, request, synthesise, write_prompts

TEXTS = [f"thing number {number}" for number in range(18)]


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    prompts, events = write_prompts(tmp_path / "p.jsonl", TEXTS), list[SynthEvent]()
    for name, workers in (("one", 1), ("two", 2)):
        synthesise(request(prompts, str(tmp_path / name)), workers, events.append)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    blocks = -(-len(TEXTS) // 4)
    assert Counter(name.split("/")[0] for name in one) == {
        "data": blocks,
        "manifest": blocks,
        "done": blocks,
        "ledger": 1,
        "spec.json": 1,
        "prompts.index": 1,
    }
    assert [event.kind for event in events] == ["start", *["block"] * blocks, "end"] * 2
    assert [event.done_blocks for event in events] == [*range(blocks + 1), blocks] * 2
    assert {event.total_blocks for event in events} == {blocks}


@pytest.mark.slow
def test_prompts_that_kill_or_fail_are_named_and_the_rest_is_drawn(tmp_path: Path) -> None:
    texts = [*TEXTS[:5], "twice", "poison", *TEXTS[5:8], "faulty", "absent"]
    prompts, notes = write_prompts(tmp_path / "p.jsonl", texts), list[str]()
    asked = request(prompts, str(tmp_path / "set"))
    image_set, driver = synthesise(asked, 1, lambda event: notes.append(event.note))
    records = {record.block: record for record in image_set.records()}
    assert [records[block].fates.get("failed", 0) for block in range(3)] == [0, 4, 4]
    assert driver.lacking == 8
    assert records[1].problems[0].endswith("ValueError: engine gave '5/0' twice")
    assert "6/0: given up after 3 tries: the worker was ended by SIGKILL" in records[1].problems
    assert "the engine cannot draw this" in records[2].problems[0]
    assert records[2].problems[2:] == ("11/0: nothing was drawn", "11/1: nothing was drawn")
    assert "block 1 fails at the prompts of rows 5, 6" in notes


@pytest.mark.slow
def test_where_every_prompt_fails_it_is_not_the_prompts(tmp_path: Path) -> None:
    """Else a broken judge would be asked three times by each of a million workers."""
    prompts = write_prompts(tmp_path / "p.jsonl", [f"faulty {number}" for number in range(HOPELESS + 4)])
    asked = request(prompts, str(tmp_path / "set"), block_prompts=HOPELESS + 2)
    with pytest.raises(Incomplete, match=r"no other has ever been drawn: .*the engine cannot draw this"):
        synthesise(asked)
    assert not (tmp_path / "set" / "done").exists()


@pytest.mark.slow
def test_codes_that_no_set_can_hold_are_refused(tmp_path: Path) -> None:
    """Stored as whole numbers from 0 on, -1 would become four billion."""
    prompts = write_prompts(tmp_path / "p.jsonl", ["strange"])
    with pytest.raises(BadInput, match="gives the token -1, of a codebook of"):
        synthesise(request(prompts, str(tmp_path / "set"), keep="both"))


@pytest.mark.slow
def test_a_second_start_draws_again_what_failed(tmp_path: Path) -> None:
    """And commits it as another attempt, if it lacks less; what is whole is not drawn again."""
    prompts, log = write_prompts(tmp_path / "p.jsonl", [*TEXTS[:5], "absent"]), tmp_path / "log"
    asked = request(prompts, str(tmp_path / "set"), engine_options={"log": str(log)})
    image_set, _ = synthesise(asked)
    before, drawn = contents(tmp_path / "set"), log.read_text().split()
    _, driver = synthesise(asked)
    assert (driver.committed, driver.done, driver.total) == (0, 2, 2)
    assert log.read_text().split()[len(drawn) :] == ["4/0", "4/1", "5/0", "5/1"]
    assert contents(tmp_path / "set") == before
    assert [(r.block, r.attempt, r.lacking) for r in image_set.records()] == [(0, 0, 0), (1, 0, 2)]


@pytest.mark.slow
def test_two_drivers_share_the_work(tmp_path: Path) -> None:
    prompts, log = write_prompts(tmp_path / "p.jsonl", TEXTS * 2), tmp_path / "log"
    options = {"log": str(log), "pace_ms": 20}
    asked = request(prompts, str(tmp_path / "set"), engine_options=options)
    drivers: list[Driver] = []

    def draw(holder: str) -> None:
        drivers.append(synthesise(asked, 1, holder=holder)[1])

    threads = [threading.Thread(target=draw, args=(f"driver-{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(log.read_text().split()) == sorted(f"{row}/{n}" for row in range(36) for n in range(2))
    assert sum(driver.committed for driver in drivers) == 9
    assert all(driver.committed for driver in drivers)
    synthesise(request(prompts, str(tmp_path / "alone"), engine_options={"pace_ms": 0}))
    alone, shared = contents(tmp_path / "alone"), contents(tmp_path / "set")
    assert {**alone, "spec.json": b""} == {**shared, "spec.json": b""}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"best_of": 3}, "best-of was 2, now 3"),
        ({"seed": 1}, "seed"),
        ({"layout": "webdataset"}, "layout was 'parquet'"),
        ({"keep": "both"}, "keep"),
        ({"block_prompts": 5}, "block-prompts was 4"),
        ({"top": 1}, "top was 0"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, change: dict[str, object], named: str) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", TEXTS[:1])
    begin_set(request(prompts, str(tmp_path / "set")))
    with pytest.raises(SpecMismatch, match=named):
        begin_set(request(prompts, str(tmp_path / "set"), **change))  # type: ignore[arg-type]


def test_a_changed_prompt_file_is_refused(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", TEXTS[:1])
    begin_set(request(prompts, str(tmp_path / "set")))
    write_prompts(prompts, ["thing number 1"])
    with pytest.raises(SpecMismatch, match=r"p\.jsonl"):
        begin_set(request(prompts, str(tmp_path / "set")))


def test_a_start_that_broke_off_leaves_no_prompts_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may be another one at the next start, as long as there is no set."""
    prompts = write_prompts(tmp_path / "p.jsonl", TEXTS[:1])
    for name in ("begin", "store_prompt_index"):
        with monkeypatch.context() as patch:
            patch.setattr(ImageSet, name, _interrupt)
            with pytest.raises(KeyboardInterrupt):
                begin_set(request(prompts, str(tmp_path / name)))
    with pytest.raises(BadInput, match=r"not begun to the end \(no prompts\.index\)"):
        _work_on(ImageSet(open_store(tmp_path / "store_prompt_index")))
    begin_set(request(prompts, str(tmp_path / "store_prompt_index")))
    write_prompts(prompts, TEXTS[:2])
    assert synthesise(request(prompts, str(tmp_path / "begin")))[1].done == 1
    with pytest.raises(SpecMismatch, match=r"p\.jsonl"):
        begin_set(request(prompts, str(tmp_path / "store_prompt_index")))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _work_on(image_set: ImageSet) -> None:
    Driver(image_set, stored_spec(image_set), LocalRuntime([WorkerSlot(0)]), "test").run()
