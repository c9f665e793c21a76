"""What verify finds, what repair takes back, and what clean removes: on sets of any bytes."""

import os
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import ImageSet, digest_of, object_name, record_name
from sar_eval.storage.objects import ObjectStore, open_store
from sar_eval.storage.set_reader import open_set
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.begin import begin_set
from sar_eval.synthesis.clean import clean
from sar_eval.synthesis.repack import RepackOptions, repack
from sar_eval.synthesis.verify import Verified, repair, verify
from tests.small_sets import make_set
from tests.synth_sets import request, write_prompts

BLOCKS = 3


@pytest.fixture(params=["folder", "memory"])
def image_set(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSet:
    """Three committed blocks and their ledger."""
    uri = str(tmp_path / "set") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    found = begun(tmp_path, uri)
    for block in range(BLOCKS):
        assert commit(found, block)
    assert found.write_ledgers(BLOCKS) == 1
    return found


def begun(tmp_path: Path, uri: str) -> ImageSet:
    prompts = write_prompts(tmp_path / "p.jsonl", [f"thing {n}" for n in range(BLOCKS * 4)])
    return begin_set(request(prompts, uri))[0]


def commit(image_set: ImageSet, block: int, attempt: int = 0, failed: int = 0) -> bool:
    data, manifest = b"pictures of %d, %d" % (block, failed), b"verdicts of %d, %d" % (block, failed)
    record = BlockRecord(
        block=block,
        attempt=attempt,
        data=object_name("data", block, data, ".parquet"),
        manifest=object_name("manifest", block, manifest, ".parquet"),
        prompts=4,
        draws=8,
        data_bytes=len(data),
        manifest_bytes=len(manifest),
        fates={"kept": 8 - failed, "failed": failed},
    )
    return image_set.commit(record, data, manifest)


def look(image_set: ImageSet, quick: bool = False) -> Verified:
    return verify(image_set, lambda done, total: None, quick)


def everything(store: ObjectStore) -> dict[str, bytes]:
    return dict(store.read_many([info.name for info in store.list("")]))


def record_of(image_set: ImageSet, block: int) -> BlockRecord:
    found = image_set.record(block)
    assert found is not None
    return found


def test_a_whole_set_has_no_problem(image_set: ImageSet) -> None:
    before, found = everything(image_set.store), look(image_set)
    assert (found.blocks, found.objects, found.problems) == (3, 6, [])
    assert found.size == sum(len(data) for name, data in before.items() if name[:4] in ("data", "mani"))
    assert everything(image_set.store) == before


@pytest.mark.parametrize(
    ("harm", "quick", "why"),
    [
        ("deleted", True, "it is missing"),
        ("cut", True, "its record says"),
        ("flipped", False, "not those that its name is the digest of"),
    ],
)
@pytest.mark.parametrize("kind", ["data", "manifest"])
def test_a_damaged_object_is_named_and_comes_back(
    image_set: ImageSet, harm: str, quick: bool, why: str, kind: str
) -> None:
    store, before = image_set.store, everything(image_set.store)
    name = getattr(record_of(image_set, 1), kind)
    if harm == "deleted":
        store.delete([name])
    else:
        data = store.read(name)
        store.write(name, data[:-1] if harm == "cut" else bytes([data[0] ^ 1]) + data[1:])
    found = look(image_set, quick)
    assert [(problem.name, problem.block) for problem in found.problems] == [(name, 1)]
    assert why in found.problems[0].why
    if harm == "flipped":
        assert look(image_set, quick=True).problems == []

    assert repair(image_set, found.problems) == [1]
    assert image_set.finished() == {0, 2}
    assert image_set.record(1) is None
    assert not store.exists(name)
    assert look(image_set).problems == []
    assert commit(image_set, 1)
    image_set.write_ledgers(BLOCKS)
    assert everything(store) == before


def test_what_a_ledger_alone_knows_survives_a_repair(image_set: ImageSet) -> None:
    store = image_set.store
    store.delete([record_name(block, 0) for block in range(BLOCKS)] + [record_of(image_set, 0).data])
    assert repair(image_set, look(image_set).problems) == [0]
    assert image_set.finished() == {1, 2}
    assert image_set.record(0) is None


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b'{"block": 1}', b"null\n", b"\xff\xfe"],
    ids=["empty", "half", "list", "short", "null", "bytes"],
)
def test_a_broken_record_is_taken_back(image_set: ImageSet, broken: bytes) -> None:
    before = everything(image_set.store)
    image_set.store.write(record_name(1, 0), broken)
    found = look(image_set)
    assert [(problem.name, problem.block) for problem in found.problems] == [(record_name(1, 0), 1)]
    assert found.problems[0].why
    assert repair(image_set, found.problems) == [1]
    assert commit(image_set, 1)
    image_set.write_ledgers(BLOCKS)
    assert everything(image_set.store) == before


def test_a_record_of_another_block_is_told(image_set: ImageSet) -> None:
    image_set.store.write(record_name(1, 0), image_set.store.read(record_name(2, 0)))
    assert "it is about attempt 0 of block 2" in look(image_set).problems[0].why


def test_a_changed_ledger_goes_and_the_records_stay(image_set: ImageSet) -> None:
    store = image_set.store
    (ledger,) = [info.name for info in store.list("ledger/")]
    before = everything(store)
    store.write(ledger, store.read(ledger).replace(b'"draws": 8', b'"draws": 9'))
    found = look(image_set)
    assert [(problem.name, problem.block) for problem in found.problems] == [(ledger, None)]
    assert repair(image_set, found.problems) == []
    assert image_set.write_ledgers(BLOCKS) == 1
    assert everything(store) == before


def test_changed_removals_are_told_and_go(image_set: ImageSet) -> None:
    name = f"dedup/phash-{digest_of(b'right')}.parquet"
    image_set.store.write(name, b"right")
    assert look(image_set).problems == []
    image_set.store.write(name, b"wrong")
    found = look(image_set)
    assert [problem.name for problem in found.problems] == [name]
    assert repair(image_set, found.problems) == []
    assert not image_set.store.exists(name)


def test_a_repacked_set_is_verified_too(tmp_path: Path) -> None:
    make_set(tmp_path / "set", keep="tokens")
    copy = open_store(tmp_path / "copy")
    repack(open_set(tmp_path / "set"), copy, RepackOptions(rows=3, layout="webdataset"))
    whole = look(ImageSet(copy))
    assert (whole.repacked, whole.blocks, whole.objects, whole.problems) == (True, 0, 3, [])
    name = next(info.name for info in copy.list("data/"))
    copy.write(name, copy.read(name)[:-1] + b"!")
    assert [problem.name for problem in look(ImageSet(copy)).problems] == [name]
    copy.delete([name])
    assert [problem.why for problem in look(ImageSet(copy)).problems] == ["it is missing"]


def test_a_place_without_a_set_is_told() -> None:
    with pytest.raises(BadInput, match="is no set"):
        look(ImageSet(open_store(f"memory://{uuid.uuid4().hex}")))


def cleaned(image_set: ImageSet, older_s: float = -60.0, dry_run: bool = False) -> list[str]:
    """By default what was written this moment is old."""
    return clean(image_set, older_s, lambda done, total: None, dry_run).names


def test_clean_removes_what_no_record_names(image_set: ImageSet) -> None:
    store, before = image_set.store, everything(image_set.store)
    lost = [object_name(kind, 1, b"of a lost race", ".parquet") for kind in ("data", "manifest")]
    for name in (*lost, "claims/000000001-0", "claims/000000007-0", "data/notes.txt", "mine.txt"):
        store.write(name, b"of a lost race")
    assert sorted(cleaned(image_set, older_s=3600.0)) == [], "an object may be one whose record follows"
    assert cleaned(image_set, dry_run=True) == [*lost, "claims/000000001-0"]
    assert len(everything(store)) == len(before) + 6
    assert cleaned(image_set) == [*lost, "claims/000000001-0"]
    kept = dict.fromkeys(("claims/000000007-0", "data/notes.txt", "mine.txt"), b"of a lost race")
    assert everything(store) == before | kept


def test_clean_removes_superseded_attempts(tmp_path: Path) -> None:
    image_set = begun(tmp_path, str(tmp_path / "set"))
    for block in range(BLOCKS):
        commit(image_set, block, failed=2 if block == 1 else 0)
    image_set.write_ledgers(BLOCKS)
    old = record_of(image_set, 1)
    assert commit(image_set, 1, attempt=1, failed=0)
    (ledger,) = [info.name for info in image_set.store.list("ledger/")]
    assert cleaned(image_set) == [record_name(1, 0), old.data, old.manifest, ledger]
    assert [record.attempt for record in image_set.records()] == [0, 1, 0]
    assert image_set.write_ledgers(BLOCKS) == 1
    assert look(image_set).problems == []
    assert cleaned(image_set) == []


def test_an_object_that_both_attempts_name_stays(tmp_path: Path) -> None:
    image_set = begun(tmp_path, str(tmp_path / "set"))
    commit(image_set, 0, failed=1)
    first = record_of(image_set, 0)
    data, manifest = image_set.store.read(first.data), image_set.store.read(first.manifest)
    assert image_set.commit(replace(first, attempt=1, fates={"kept": 8}), data, manifest)
    assert cleaned(image_set) == [record_name(0, 0)]
    assert look(image_set).problems == []


def test_clean_leaves_groups_with_broken_records(image_set: ImageSet) -> None:
    image_set.store.write(record_name(1, 0), b"{")
    before = everything(image_set.store)
    found = clean(image_set, -60.0, lambda done, total: None)
    assert (found.names, found.unclear) == ([], [0])
    assert everything(image_set.store) == before


def test_clean_removes_temporaries_of_the_dead(tmp_path: Path) -> None:
    image_set = begun(tmp_path, str(tmp_path / "set"))
    left = tmp_path / "set" / ".tmp" / f"{'0' * 12}-1-1-{'0' * 12}"
    left.write_bytes(b"")
    os.utime(left, (0, time.time() - 2 * 86_400))
    assert cleaned(image_set) == [f".tmp/{left.name}"]


def test_objects_whose_record_may_follow_stay(image_set: ImageSet) -> None:
    """However old: a worker that draws the block again writes the same ones, and then its record."""
    store, before = image_set.store, everything(image_set.store)
    ledgers = [info.name for info in store.list("ledger/")]
    store.delete([record_name(1, 0), *ledgers])
    for block in (0, 2):
        store.write(object_name("data", block, b"of a lost race", ".parquet"), b"of a lost race")
    assert [name[:19] for name in cleaned(image_set)] == ["data/part-000000000", "data/part-000000002"]
    assert commit(image_set, 1)
    assert look(image_set).problems == []
    assert everything(store) == {name: before[name] for name in before if name not in ledgers}


def test_attempts_at_a_block_that_still_lacks_draws_stay(tmp_path: Path) -> None:
    image_set = begun(tmp_path, str(tmp_path / "set"))
    commit(image_set, 0, failed=2)
    assert commit(image_set, 0, attempt=1, failed=1)
    assert cleaned(image_set) == []
    assert commit(image_set, 0, attempt=2)
    assert len(cleaned(image_set)) == 2 + 4, "two records, two objects of each"
    assert look(image_set).problems == []


@pytest.mark.parametrize("line", [0, 1])
def test_a_ledger_that_lost_a_line_hides_no_block(image_set: ImageSet, line: int) -> None:
    (ledger,) = [info.name for info in image_set.store.list("ledger/")]
    lines = image_set.store.read(ledger).splitlines(keepends=True)
    image_set.store.write(ledger, b"".join(lines[:line] + lines[line + 1 :]))
    with pytest.raises(BadInput, match=r"ledger/000000-\w+.jsonl is broken: .*verify --repair"):
        list(image_set.records())
    assert repair(image_set, look(image_set).problems) == []
    assert [record.block for record in image_set.records()] == [0, 1, 2]


def test_a_ledger_speaks_of_its_own_blocks(image_set: ImageSet) -> None:
    store = image_set.store
    (ledger,) = [info.name for info in store.list("ledger/")]
    other = ledger.replace("/000000-", "/000001-")
    store.write(other, store.read(ledger))
    with pytest.raises(BadInput, match="it is about attempt 0 of block 0"):
        list(image_set.records())
    assert [problem.name for problem in look(image_set).problems] == [other]
