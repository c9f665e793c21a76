"""The name of a driver in its claims: started again on its machine, it goes on with those it had."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST = 1000  # drivers of one set on one machine


@contextmanager
def driver_name(uri: str) -> Iterator[str]:
    """A name that no other living driver of this set on this machine has: the first that is free.

    A driver that was killed frees its name, whatever killed it, since the lock is the process's. Where
    files cannot be locked the name is new, and claims of the dead run out by themselves.
    """
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-") or "host"
    folder = Path(tempfile.gettempdir()) / f"sar-eval-drivers-{os.getuid()}"
    stem = hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()
    for number in range(MOST):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            file = (folder / f"{stem}-{number}").open("a")
        except OSError:
            break
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:
                break
            yield f"{host}-{number}"
            return
    yield f"{host}-{uuid.uuid4().hex}"
