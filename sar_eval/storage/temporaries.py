"""Names of temporary files by which anyone can tell whether their writer is gone."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from functools import cache

from sar_eval.storage.owner import is_alive, this_process

FOLDER = ".tmp"
FOREIGN_S = 86_400.0  # a temporary of another machine, whose processes cannot be seen here, is left by then
_NAME = re.compile(r"(?P<place>[0-9a-f]{12})-(?P<pid>\d{1,10})-(?P<started>\d*)-[0-9a-f]{12}")


def temporary_name() -> str:
    """A new name: where its process runs (a digest), pid, start of the process, and something random."""
    place, started = _here(os.getpid())
    return f"{place}-{os.getpid()}-{started}-{uuid.uuid4().hex[:12]}"


def is_left_over(entry: os.DirEntry[str]) -> bool:
    """Whether this is a temporary file whose writer is gone; anything else is somebody else's."""
    match = _NAME.fullmatch(entry.name)
    if not match or not entry.is_file(follow_symlinks=False):
        return False
    if match["place"] == _here(os.getpid())[0]:
        return not is_alive(int(match["pid"]), match["started"])
    return time.time() - entry.stat().st_mtime > FOREIGN_S


@cache
def _here(pid: int) -> tuple[str, str]:  # noqa: ARG001 - a forked process has a start of its own
    owner = this_process()
    place = f"{owner.host}\0{owner.boot}\0{owner.namespace}"
    return hashlib.sha256(place.encode()).hexdigest()[:12], owner.started
