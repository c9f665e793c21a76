"""The owner's name in the lock file, for file systems whose locks keep nobody out."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sar_eval.errors import RunLocked, StorageFailed
from sar_eval.storage import owner as owner_module
from sar_eval.storage.lock import run_lock
from sar_eval.storage.owner import Heartbeat, Owner, read_owner, this_process

GONE = 4_194_304  # above the largest pid


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "BEAT_S", 0.05)
    monkeypatch.setattr(owner_module, "FIRST_BEAT_S", 0.05)
    monkeypatch.setattr(owner_module, "WATCH_S", 0.3)


@pytest.fixture(params=["everybody gets it", "ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        if request.param != "everybody gets it":
            number = getattr(errno, request.param)
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this machine."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def _as_process(pid: int) -> Owner:
    return replace(this_process(), pid=pid, started=owner_module._started(pid), token="theirs")


def _write(folder: Path, owner: Owner) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "run.lock").write_text(json.dumps(asdict(owner)))


def test_the_holder_is_named_while_it_holds(tmp_path: Path) -> None:
    with run_lock(tmp_path) as note:
        assert note == ""
        found = read_owner(tmp_path / "run.lock")
        assert found is not None
        assert (found.pid, found.host) == (os.getpid(), this_process().host)
        refused = pytest.raises(RunLocked, match=rf"another process works in .*process {os.getpid()} on")
        with refused, run_lock(tmp_path):
            pass
    assert read_owner(tmp_path / "run.lock") is None


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_living_process_keeps_others_out(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    _write(tmp_path, _as_process(child.pid))
    with (
        pytest.raises(RunLocked, match=rf"process {child.pid} on .*remove .*run\.lock"),
        run_lock(tmp_path),
    ):
        pass
    child.kill()
    child.wait()
    with run_lock(tmp_path) as note:
        assert "has no file locks" in note


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("change", [{"pid": GONE}, {"started": "1"}, {"boot": "x", "beat": 1.0}])
def test_without_locks_the_dead_keep_nobody_out(tmp_path: Path, change: dict[str, object]) -> None:
    """A pid that is gone or belongs to another process now; a host without a sign of life for long."""
    _write(tmp_path, replace(this_process(), token="theirs", **change))
    with run_lock(tmp_path):
        pass


def test_with_a_lock_that_holds_the_name_does_not_matter(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    _write(tmp_path, _as_process(child.pid))
    with run_lock(tmp_path) as note:
        assert note == ""


@pytest.mark.parametrize("change", [{"host": "other", "boot": "b"}, {"host": "other", "boot": ""}])
def test_a_process_on_another_host_is_known_by_its_signs_of_life(
    tmp_path: Path, change: dict[str, str]
) -> None:
    """A lock that holds on this host may be unknown to the other (`localflock`)."""
    theirs = replace(this_process(), token="theirs", **change)
    _write(tmp_path, theirs)
    descriptor = os.open(tmp_path / "run.lock", os.O_RDWR)
    heartbeat = Heartbeat(tmp_path / "run.lock", descriptor, theirs)
    heartbeat.start()
    with pytest.raises(RunLocked, match="on other works in"), run_lock(tmp_path):
        pass
    heartbeat.stop()
    _write(tmp_path, replace(theirs, beat=time.time()))  # it died without a word
    with run_lock(tmp_path):
        pass
    os.close(descriptor)


@pytest.mark.usefixtures("no_locks")
def test_of_two_that_start_at_once_one_stops(tmp_path: Path) -> None:
    """Whichever it is: both write, and the one that reads the other's name has been written over."""
    theirs = Heartbeat(tmp_path / "run.lock", -1, _as_process(os.getppid()))
    theirs._interrupts = False  # it would be this process

    def work() -> None:
        with run_lock(tmp_path):
            theirs.descriptor = os.open(tmp_path / "run.lock", os.O_RDWR)
            theirs.start()
            while theirs.taken_by is None:
                time.sleep(0.01)

    told = ""
    try:
        work()
    except RunLocked as error:
        told = str(error)
    assert ("both started at once" in told) == (theirs.taken_by is None)
    theirs.stop()
    os.close(theirs.descriptor)


@pytest.mark.usefixtures("no_locks")
def test_who_is_written_over_stops(tmp_path: Path) -> None:
    theirs = Heartbeat(tmp_path / "run.lock", -1, _as_process(os.getppid()))

    def work() -> None:
        with run_lock(tmp_path):
            theirs.descriptor = os.open(tmp_path / "run.lock", os.O_RDWR)
            while True:  # again and again, as our own sign of life may fall in between
                theirs._write(theirs.owner)
                time.sleep(0.01)

    with pytest.raises(RunLocked, match="both started at once"):
        work()
    os.close(theirs.descriptor)


@pytest.mark.parametrize("contents", [b"", b"\0" * 600, b"[1]", b'{"host": 3}', b"[" * 600, b"\xff"])
def test_a_lock_file_with_anything_in_it_is_taken(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "run.lock").write_bytes(contents)
    with run_lock(tmp_path):
        pass


def test_a_lock_that_fails_otherwise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageFailed, match=r"run\.lock: the disk failed"), run_lock(tmp_path):
        pass
