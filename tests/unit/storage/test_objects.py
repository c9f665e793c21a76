"""Stores of objects: the same promises on a folder, in memory and on a real S3 server, and its faults."""

import os
import pickle
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, MissingExtra, StorageFailed
from sar_eval.storage.objects import ObjectMissing, ObjectStore, check_name, open_store
from sar_eval.storage.retries import Retries
from tests.fault_proxy import Fault, Proxy

QUICK = Retries(tries=4, first_s=0.001, longest_s=0.01, timeout_s=1.0)


@pytest.fixture
def bucket(s3: Proxy) -> ObjectStore:
    return open_store(f"s3://bucket/{uuid.uuid4().hex}", QUICK)


@pytest.fixture(params=["folder", "file://", "memory://", "s3://", "gs://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Anew a folder, a place in memory and a place in a bucket; as another process would open it."""
    if request.param in ("s3://", "gs://"):
        request.getfixturevalue({"s3://": "s3", "gs://": "gcs"}[request.param])
    folder = f"{tmp_path}/set"
    uris = {"folder": folder, "file://": f"file://{folder}", "s3://": f"s3://bucket/{uuid.uuid4().hex}"}
    uris["gs://"] = f"gs://bucket/{uuid.uuid4().hex}"
    found = open_store(uris.get(request.param, f"memory://{uuid.uuid4().hex}/set"), QUICK)
    return pickle.loads(pickle.dumps(found))


def test_what_every_store_promises(store: ObjectStore) -> None:
    assert list(store.list("")) == []
    assert store.folders("done") == []
    store.check_writable()
    assert list(store.list("")) == [], "the check leaves nothing"
    store.write("data/b.tar", b"new")
    store.write("data/a", b"old")
    store.write("data/a", b"")
    assert store.create("done/000001/1.json", b"first")
    assert not store.create("done/000001/1.json", b"second")
    assert store.create("done/000000/0.json", b"")
    assert store.read("done/000001/1.json") == b"first"
    names = ["data/a", "data/b.tar", "done/000000/0.json", "done/000001/1.json"]
    assert [info.name for info in store.list("")] == names
    assert [(info.name, info.size) for info in store.list("data/b")] == [("data/b.tar", 3)]
    assert all(abs(info.modified - time.time()) < 60 for info in store.list("done/"))
    assert store.folders("done") == ["000000", "000001"]
    assert store.folders("") == ["data", "done"]
    assert list(store.read_many(reversed(names)))[::3] == [
        ("done/000001/1.json", b"first"),
        ("data/a", b""),
    ]
    assert (store.exists("data/a"), store.exists("data"), store.exists("nothing")) == (True, False, False)
    store.delete(["data/a", "never/was"])
    assert [info.name for info in store.list("data/")] == ["data/b.tar"]


def test_missing_objects_are_named(store: ObjectStore) -> None:
    for action in (store.read, store.open, lambda name: list(store.read_many([name]))):
        with pytest.raises(ObjectMissing, match=r"set/no/such|/no/such"):
            action("no/such")


def test_a_file_object_reads_ranges(store: ObjectStore) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    store.write("empty", b"")
    with store.open("empty") as file:
        assert file.read() == b""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": range(50_000)}), sink, row_group_size=1_000)
    store.write("table.parquet", sink.getvalue().to_pybytes())
    with store.open("table.parquet") as file, pq.ParquetFile(file) as table:
        assert table.read_row_group(7)["n"][3].as_py() == 7_003


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "a/../../b", "a//b", "./a", "a b", "a\x00", "a?b", "a*", "é"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="no name of an object"):
        check_name(name)
    with pytest.raises(BadInput, match="no name of an object"):
        open_store("memory://x").read(name)


def test_of_many_creators_one_succeeds(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for n in range(4):
            wins = list(pool.map(lambda i, n=n: store.create(f"done/{n}", b"%d" % i), range(8)))
            assert wins.count(True) == 1
            assert store.read(f"done/{n}") == b"%d" % wins.index(True)


# A folder: crashes, other processes, and file systems that cannot do everything.


def test_a_writer_that_dies_leaves_no_object(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from sar_eval.storage import local_objects\n"
        "local_objects.sync_file = lambda file: os.kill(os.getpid(), 9)\n"
        "local_objects.LocalStore.create(local_objects.ObjectStore.__subclasses__()[0]"
        "(sys.argv[1], local_objects.Path(sys.argv[1]), local_objects.Retries()), 'done/0.json', b'1')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    store = open_store(tmp_path)
    assert len(list((tmp_path / ".tmp").iterdir())) == 1
    living = tmp_path / ".tmp" / "somebody-elses"
    living.write_bytes(b"")
    assert list(store.list("")) == []
    assert len(store.sweep()) == 1
    assert list((tmp_path / ".tmp").iterdir()) == [living]


def test_temporaries_of_the_living_stay(tmp_path: Path) -> None:
    from sar_eval.storage.temporaries import temporary_name

    own, foreign = tmp_path / ".tmp" / temporary_name(), tmp_path / ".tmp" / f"{'0' * 12}-1-1-{'0' * 12}"
    own.parent.mkdir()
    own.write_bytes(b"")
    foreign.write_bytes(b"")
    assert open_store(tmp_path).sweep() == []
    os.utime(foreign, (0, time.time() - 2 * 86_400))
    assert open_store(tmp_path).sweep() == [f".tmp/{foreign.name}"]
    assert own.exists()


def test_without_hard_links_one_creator_succeeds_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    store = open_store(tmp_path)
    store.check_writable()
    assert store.create("done/0", b"1")
    assert not store.create("done/0", b"2")
    assert store.read("done/0") == b"1"


def test_an_answer_that_nfs_lost_is_an_own_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lost(source: Path, path: Path) -> None:
        link(source, path)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", lost)
    assert open_store(tmp_path).create("done/0", b"1")


def test_a_stale_handle_of_nfs_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    replace, calls = Path.replace, []

    def stale(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) < 3:
            raise OSError(errno.ESTALE, "Stale file handle")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stale)
    open_store(tmp_path, QUICK).write("a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert len(calls) == 3
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write to .*file/set: "):
        open_store(tmp_path / "file" / "set").check_writable()
    with pytest.raises(StorageFailed, match="run the same command again"):
        open_store(tmp_path / "file" / "set").write("a", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sar_eval.storage import local_objects

    (tmp_path / ".tmp").symlink_to("/dev")
    monkeypatch.setattr(local_objects, "temporary_name", lambda: "full")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r": real(self, mode.replace("x", "w")))
    with pytest.raises(BadInput, match="the disk is full"):
        open_store(tmp_path).check_writable()


def test_a_pipe_in_a_set_does_not_hang_readers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(BadInput, match="no regular file"):
        open_store(tmp_path).read("a")


# S3: what passes is tried again, with one object as the end of it.

PASSING = [
    Fault(times=1, code="drop", reaches=True),
    Fault(times=2, status=500, code="InternalError"),
    Fault(times=3, status=503, code="SlowDown"),
    Fault(times=1, status=503, code="ServiceUnavailable", reaches=True),
    Fault(times=1, status=500, code="InternalError", reaches=True),
    Fault(times=1, status=409, code="ConditionalRequestConflict"),
    Fault(times=1, status=429, code="TooManyRequests"),
    Fault(times=2, code="drop"),
]


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=pytest.mark.slow if n > 1 else ()) for n, fault in enumerate(PASSING)],
    ids=lambda f: f"{f.status}-{f.code}-{f.reaches}",
)
def test_passing_faults_pass(s3: Proxy, bucket: ObjectStore, fault: Fault) -> None:
    from dataclasses import replace

    def once(method: str) -> None:
        s3.faults[:] = [replace(fault, method=method)]

    once("PUT")
    bucket.write("data/a", b"bytes")
    once("PUT")
    assert bucket.create("done/0", b"ours"), "also if the store has it and its answer was lost"
    assert s3.faults[0].times == 0
    once("PUT")
    assert not bucket.create("done/0", b"theirs")
    once("GET")
    assert bucket.read("data/a") == b"bytes"
    once("GET")
    assert [info.name for info in bucket.list("")] == ["data/a", "done/0"]
    once("HEAD")
    with bucket.open("data/a") as file:
        s3.faults[:] = [replace(fault, method="GET")]
        assert file.read() == b"bytes"
    once("DELETE")
    bucket.delete(["data/a"])
    assert s3.faults[0].times == 0
    assert not bucket.exists("data/a")


@pytest.mark.parametrize("code", ["silent", pytest.param("slow", marks=pytest.mark.slow)])
def test_a_store_that_does_not_answer_is_asked_again(s3: Proxy, code: str) -> None:
    store = open_store(f"s3://bucket/{uuid.uuid4().hex}", Retries(3, 0.001, 0.01, timeout_s=0.4))
    s3.faults.append(Fault(method="PUT", code=code, wait_s=1.0))
    assert store.create("done/0", b"ours")
    if code == "slow":
        s3.faults.append(Fault(method="GET", wait_s=1.0))
    assert store.read("done/0") == b"ours"
    assert [fault.times for fault in s3.faults] == [0] * len(s3.faults)


def test_half_an_answer_is_none(s3: Proxy, bucket: ObjectStore) -> None:
    bucket.write("a", bytes(100_000))
    s3.faults.append(Fault(method="GET", cut=1_000))
    assert bucket.read("a") == bytes(100_000)
    assert s3.faults[0].times == 0


def test_a_lost_answer_is_no_success_where_another_won(s3: Proxy, bucket: ObjectStore) -> None:
    bucket.write("done/0", b"theirs")
    s3.faults.append(Fault(method="PUT", status=500, code="InternalError"))
    assert not bucket.create("done/0", b"ours")
    assert bucket.read("done/0") == b"theirs"


def test_tries_are_bounded(s3: Proxy, bucket: ObjectStore) -> None:
    s3.faults.append(Fault(times=100, status=503, code="SlowDown"))
    with pytest.raises(StorageFailed, match="failed 4 times in a row, at last with SlowDown"):
        bucket.write("a", b"1")
    assert len(s3.requests) == QUICK.tries, "no retries of s3fs or botocore under ours"
    with pytest.raises(BadInput, match=r"cannot read s3://bucket/.*/a: the store failed 4 times"):
        bucket.read("a")


def test_requests_of_each_action(s3: Proxy, bucket: ObjectStore) -> None:
    """What docs/synthesis.md counts and prices. A busy machine must not make a second try of one."""
    patient = open_store(bucket.uri)
    patient.write("data/a", bytes(1000))
    patient.create("done/0", b"1")
    patient.create("done/0", b"1")
    patient.read("data/a")
    list(patient.list("done/"))
    assert [line.split()[0] for line in s3.requests] == ["PUT", "PUT", "PUT", "GET", "GET"]


LASTING = [
    (Fault(status=403, code="AccessDenied"), "no permission: .*s3:PutObject"),
    (Fault(status=403, code="RequestTimeTooSkewed"), "this machine's clock differs from the store's"),
    (Fault(status=403, code="SignatureDoesNotMatch"), "does not accept the credentials"),
    (Fault(status=400, code="ExpiredToken"), "does not accept the credentials"),
    (
        Fault(status=400, code="AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"),
        r"another region \(eu-west-1\): set AWS_DEFAULT_REGION",
    ),
    (Fault(status=501, code="NotImplemented"), "no conditional writes"),
    (Fault(status=507, code="XMinioStorageFull"), "the store is full"),
    (Fault(status=400, code="InvalidArgument"), "InvalidArgument: as told"),
]


@pytest.mark.parametrize(("fault", "message"), LASTING, ids=lambda value: getattr(value, "code", ""))
def test_lasting_faults_are_told_at_once(
    s3: Proxy, bucket: ObjectStore, fault: Fault, message: str
) -> None:
    fault.times = 1000
    s3.faults.append(fault)
    with pytest.raises(BadInput, match=message):
        bucket.check_writable()
    assert len(s3.requests) <= 2, "s3fs itself follows one redirect"
    with pytest.raises(StorageFailed, match=message):
        bucket.create("a", b"1")
    with pytest.raises(BadInput, match=message.replace("with no", "no")):
        bucket.read("a")


def test_a_redirect_to_another_region_is_followed(s3: Proxy, bucket: ObjectStore) -> None:
    s3.faults.append(Fault(status=301, code="PermanentRedirect", method="PUT"))
    bucket.write("a", b"1")
    assert any(line.startswith("HEAD /bucket") for line in s3.requests), "it asked for the bucket's region"
    assert bucket.read("a") == b"1"


def test_a_bucket_that_is_not_there(s3: Proxy) -> None:
    store = open_store("s3://nowhere/set", QUICK)
    for action in (
        store.check_writable,
        lambda: store.read("a"),
        lambda: list(store.list("")),
        store.sweep,
    ):
        with pytest.raises(BadInput, match="there is no such bucket"):
            action()


@pytest.mark.slow
def test_no_credentials(s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(BadInput, match="no credentials found: for S3 set AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket/set", QUICK).check_writable()


@pytest.mark.slow
def test_nobody_at_the_address(s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match="Could not connect to the endpoint"):
        open_store("s3://bucket/set", QUICK).check_writable()


def test_a_store_that_ignores_the_condition_is_refused(s3: Proxy, bucket: ObjectStore) -> None:
    """As object stores of before 2024 do: they take `If-None-Match` and replace the object."""
    s3.ignored_headers.append("If-None-Match")
    try:
        with pytest.raises(BadInput, match="no conditional writes"):
            bucket.check_writable()
    finally:
        s3.ignored_headers.clear()


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sar-eval\[gcs\]'"):
        open_store("gcs://bucket/set")


@pytest.mark.slow
def test_a_lost_answer_of_google_is_an_own_success(gcs: list[str]) -> None:
    store = open_store(f"gs://bucket/{uuid.uuid4().hex}", QUICK)
    gcs.append("backendError")
    assert store.create("done/0", b"ours"), "gcsfs tries again by itself"
    assert gcs == []
    assert not store.create("done/0", b"theirs")


def test_unknown_kinds_of_store() -> None:
    with pytest.raises(BadInput, match=r"ftpx://a: unknown kind of store"):
        open_store("ftpx://a")
