"""Sets in a bucket: lost races, listings that lag, and a store that fails now and then."""

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sar_eval.errors import StorageFailed
from sar_eval.storage.image_set import ImageSet, object_name
from sar_eval.storage.objects import open_store
from sar_eval.storage.retries import Retries
from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.verify import repair, verify
from tests.fault_proxy import Fault, Proxy
from tests.small_sets import spec_of
from tests.synth_sets import PASSING, contents, request, synthesise, write_prompts

QUICK = Retries(tries=4, first_s=0.001, longest_s=0.01, timeout_s=1.0)


@pytest.fixture
def image_set(s3: Proxy) -> ImageSet:
    found = ImageSet(open_store(f"s3://bucket/{uuid.uuid4().hex}", QUICK))
    found.begin(spec_of(2, 4).to_json())
    return found


def commit(image_set: ImageSet, block: int, worker: str = "") -> bool:
    """What a worker commits; the bytes of some hang on the device, and so on the worker."""
    data, manifest = (b"%s of %d by %s" % (kind, block, worker.encode()) for kind in (b"data", b"manifest"))
    names = [
        object_name(kind, block, made, ".parquet")
        for kind, made in (("data", data), ("manifest", manifest))
    ]
    sizes = (len(data), len(manifest))
    record = BlockRecord(block, 0, *names, 4, 8, *sizes, {"kept": 8}, device=worker)
    return image_set.commit(record, data, manifest)


def test_of_many_workers_one_commits(image_set: ImageSet) -> None:
    for block in range(2):
        with ThreadPoolExecutor(4) as pool:
            wins = list(pool.map(lambda n, block=block: commit(image_set, block, f"worker {n}"), range(4)))
        assert wins.count(True) == 1
        record = image_set.record(block)
        assert record is not None
        assert record.device == f"worker {wins.index(True)}"
    found = verify(image_set, lambda done, total: None)
    assert (found.objects, found.problems) == (4, [])


def test_a_listing_that_lags_costs_work_and_no_truth(s3: Proxy, image_set: ImageSet) -> None:
    assert commit(image_set, 0)
    s3.faults.append(Fault(times=1000, method="GET", path="list-type=2", edit=_unlisted))
    assert image_set.finished() == set(), "so the next worker draws block 0 again"
    assert not commit(image_set, 0)
    assert commit(image_set, 1, "the first")
    assert not commit(image_set, 1, "the second")
    s3.faults[:] = [Fault(times=1000, method="GET", path="list-type=2.*(data|manifest)", edit=_unlisted)]
    assert image_set.finished() == {0, 1}
    assert verify(image_set, lambda done, total: None).problems == [], "what is not listed is asked for"


def _unlisted(listing: bytes) -> bytes:
    return re.sub(rb"<(Contents|CommonPrefixes)>.*?</\1>", b"", listing, flags=re.DOTALL)


def test_an_object_that_somebody_deleted(image_set: ImageSet) -> None:
    for block in range(2):
        commit(image_set, block)
    record = image_set.record(1)
    assert record is not None
    image_set.store.delete([record.data])
    found = verify(image_set, lambda done, total: None)
    assert [(problem.name, problem.why) for problem in found.problems] == [(record.data, "it is missing")]
    assert repair(image_set, found.problems) == [1]
    assert image_set.finished() == {0}
    assert commit(image_set, 1)
    assert image_set.record(1) == record


def test_a_fault_while_a_lost_answer_is_looked_into(s3: Proxy, image_set: ImageSet) -> None:
    """The error of the look is its own: it passes, though "it exists" was answered just before."""
    s3.faults += [Fault(method="PUT", code="drop", reaches=True), Fault(times=2, method="GET", code="drop")]
    assert image_set.store.create("done/0", b"ours")
    assert [fault.times for fault in s3.faults] == [0, 0]


def test_a_fault_within_the_handling_of_another_passes(s3: Proxy, image_set: ImageSet) -> None:
    """A driver that ends by an error of the store gives its claims back meanwhile, for example."""
    s3.faults += [
        Fault(method="PUT", status=403, code="AccessDenied"),
        Fault(times=2, method="PUT", code="drop"),
    ]
    try:
        image_set.store.write("data/a", b"1")
    except StorageFailed:
        image_set.store.write("claims/0", b"1")
    assert image_set.store.read("claims/0") == b"1"
    assert [fault.times for fault in s3.faults] == [0, 0]


@pytest.mark.slow
def test_a_set_drawn_into_a_failing_bucket_is_the_same(s3: Proxy, tmp_path: Path) -> None:
    """Every fifth request fails, each time in another way, half of them after the store has it."""
    prompts = write_prompts(tmp_path / "p.jsonl", [f"thing number {number}" for number in range(18)])
    synthesise(request(prompts, str(tmp_path / "alone")))
    s3.faults += [
        Fault(times=1000, every=17, status=500, code="InternalError"),
        Fault(times=1000, every=17, method="PUT", status=503, code="SlowDown", reaches=True),
        Fault(times=1000, every=13, code="drop"),
        Fault(times=1000, every=11, method="PUT", code="drop", reaches=True),
        Fault(times=1000, every=7, method="GET", cut=20),
    ]
    image_set, _ = synthesise(request(prompts, f"s3://bucket/{uuid.uuid4().hex}"))
    hit = sum(1000 - fault.times for fault in s3.faults)
    s3.faults.clear()
    assert hit > 10
    assert verify(image_set, lambda done, total: None).problems == []
    names = [info.name for info in image_set.store.list("") if info.name.startswith(PASSING)]
    assert dict(image_set.store.read_many(names)) == contents(tmp_path / "alone")
