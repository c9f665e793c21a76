"""Who holds a run folder, written into its lock file: for file systems where everybody gets the lock.

The holder writes host, pid and start time, and every few seconds a new number, its sign of life. Another
process on the same host looks for the pid; one on another host watches whether the number changes. Two
that start at the same moment see it at their next sign of life, and the one written over stops.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec

from sar_eval.errors import RunLocked

BEAT_S = 5.0  # between signs of life
FIRST_BEAT_S = 1.0
WATCH_S = 4 * BEAT_S  # without one, its holder on another host is taken for dead
STALE_S = 600.0  # an older one is not watched: more than clocks of a cluster differ
RECORD_BYTES = 512  # always written in one piece, so that no reader sees half of it


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds a run folder.

    Attributes:
        host, boot, namespace: where `pid` means something: host name, boot of its kernel, pid namespace.
        pid, started: the process, and when it began in clock ticks since boot.
        token: of this hold.
        beat: its latest sign of life, in seconds of its host's clock.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    beat: float = field(default_factory=time.time)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def shares_kernel(self, other: Owner) -> bool:
        """Whether a lock between the two is decided by one kernel."""
        return (self.host, self.boot) == (other.host, other.boot) or bool(self.boot == other.boot != "")

    def sees(self, other: Owner) -> bool:
        """Whether the other's pid means the same here."""
        return (self.host, self.boot, self.namespace) == (other.host, other.boot, other.namespace)


def this_process() -> Owner:
    """The owner that this process would be."""
    pid = os.getpid()
    namespace = Path("/proc/self/ns/pid")
    return Owner(
        host=socket.gethostname(),
        boot=_first_line(Path("/proc/sys/kernel/random/boot_id")),
        namespace=os.readlink(namespace) if namespace.is_symlink() else "",  # noqa: PTH115 - it is no path
        pid=pid,
        started=_started(pid),
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # another system, or a sandbox without it
        return ""


def _started(pid: int) -> str:
    """When a process began, in ticks since boot; "" if there is none."""
    # Field 22; the second one, the name, may contain blanks and brackets.
    fields_after_name = _first_line(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields_after_name[19] if len(fields_after_name) > 19 else ""


def read_owner(path: Path) -> Owner | None:
    """The owner named by a lock file; None if it names none."""
    try:
        with path.open("rb") as file:
            return msgspec.convert(msgspec.json.decode(file.read(RECORD_BYTES)), Owner)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return None


def refuse_if_alive(owner: Owner, path: Path, here: Owner) -> None:
    """Refuse to take the folder from an owner who is at work.

    Args:
        owner: named by the lock file.
        path: the lock file.
        here: this process.

    Raises:
        RunLocked: the owner lives.
    """
    if here.sees(owner):
        alive = is_alive(owner.pid, owner.started)
    else:
        alive = time.time() - owner.beat < STALE_S and _changes(path, owner)
    if alive:
        raise RunLocked(
            f"{owner} works in {path.parent}: wait for it, or use another --out. If it is surely gone, "
            f"remove {path}"
        )


def is_alive(pid: int, started: str) -> bool:
    """Whether a process of this machine lives that began then, in ticks since boot ("": not known)."""
    return _started(pid) == started if started else _exists(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _changes(path: Path, owner: Owner) -> bool:
    """Whether somebody writes in the lock file; looks for as long as a few signs of life take."""
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, BEAT_S / 2))
        seen = read_owner(path)  # opened anew: network file systems look for changes then
        if seen is not None and seen != owner:
            return True
    return False


class Heartbeat:
    """Signs of life in the lock file; notices when another process has taken it."""

    def __init__(self, path: Path, descriptor: int, owner: Owner) -> None:
        self.path, self.descriptor, self.owner = path, descriptor, owner
        self.taken_by: Owner | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._interrupts = threading.current_thread() is threading.main_thread()

    def start(self) -> None:
        """Name the owner in the lock file, and keep saying that it lives."""
        self._write(self.owner)
        self._thread.start()

    def stop(self) -> None:
        """Take the owner's name out of the lock file, if it is still there."""
        self._stop.set()
        self._thread.join()
        if self.taken_by is None and self._is_ours(read_owner(self.path)):
            with _going_on():
                os.ftruncate(self.descriptor, 0)

    def _run(self) -> None:
        wait = FIRST_BEAT_S
        while not self._stop.wait(wait):
            wait, seen = BEAT_S, read_owner(self.path)
            if seen is not None and not self._is_ours(seen):
                self.taken_by = seen
                if self._interrupts:
                    _interrupt_main_thread()
                return
            self._write(replace(self.owner, beat=time.time()))

    def _is_ours(self, seen: Owner | None) -> bool:
        return seen is not None and seen.token == self.owner.token

    def _write(self, owner: Owner) -> None:
        record = msgspec.json.encode(asdict(owner)).ljust(RECORD_BYTES - 1) + b"\n"
        with _going_on():
            os.pwrite(self.descriptor, record, 0)
            os.fsync(self.descriptor)


def _interrupt_main_thread() -> None:
    """Raise KeyboardInterrupt there, also out of a wait."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):  # nohup and shell scripts may have it ignored
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            return


@contextmanager
def _going_on() -> Iterator[None]:
    """A sign of life that cannot be written (full disk, no fsync) is no reason to stop."""
    try:
        yield
    except OSError:
        return
