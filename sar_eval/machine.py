"""What of this machine the process may use: CPU cores and memory, where a cgroup gives it a part of them.

A container, a batch system or systemd limits both by control groups, of version 1 or 2; neither the
affinity mask nor /proc/meminfo knows of that. Every group from the process's own up to the root counts.
And whether a process that it started still runs there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60  # bytes; version 1 writes "no limit" as a number near 2**63


def cores() -> int:
    """CPU cores this process may use: of its affinity mask, at most its groups' share, rounded up."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([seen, *(math.ceil(share) for share in _cpu_shares())]))


def free_memory() -> int:
    """Bytes that this process and its children can still take without swapping or being killed."""
    return max(0, min([_available(), *_group_memory()]))


def _available() -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu_shares() -> Iterator[float]:
    for folder in groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(
            " "
        )  # version 2: "200000 100000" or "max ..."
        quota = quota or _read(folder / "cpu.cfs_quota_us")  # version 1: -1 is no limit
        period = period or _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _group_memory() -> Iterator[int]:
    for folder in groups("memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit.isdigit() and int(limit) < UNLIMITED:
            # Pages of files that nobody uses are given back when memory is short.
            cached = _statistic(folder / "memory.stat", ("inactive_file", "total_inactive_file"))
            yield int(limit) - max(0, int(used if used.isdigit() else 0) - cached)


def _statistic(path: Path, names: tuple[str, ...]) -> int:
    """The last of these that `memory.stat` has: version 1 counts children in `total_...` only."""
    lines = (line.split() for line in _read(path).splitlines())
    found = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[0] in names}
    return next((found[name] for name in reversed(names) if name in found), 0)


def groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Folders of the control groups that limit this process, from its own up to the mount's root.

    Args:
        controller: "cpu" or "memory".
        root: of the file system, for tests.
    """
    own = _own_groups(_read(root / "proc/self/cgroup"))
    for kind, mounted, point in _mounts(_read(root / "proc/self/mountinfo"), controller):
        path = own.get("" if kind == "cgroup2" else controller)
        if path is None:
            continue
        # In a container the path may be the host's, of which only a part is mounted, or nothing.
        inside = Path(path).relative_to(mounted) if Path(path).is_relative_to(mounted) else Path()
        top = root / point.lstrip("/")
        folder = top / inside if ".." not in inside.parts and (top / inside).is_dir() else top
        yield from (f for f in (folder, *folder.parents) if f.is_relative_to(top))


def _own_groups(text: str) -> dict[str, str]:
    """Path of this process's group by controller; version 2's is called ""."""
    lines = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return {name: path for _, names, path in lines for name in names.split(",")}


def _mounts(text: str, controller: str) -> Iterator[tuple[str, str, str]]:
    """(file system, what of it is mounted, mount point) of the hierarchies that may have the controller."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        words, (kind, *options) = before.split(), after.split() or [""]
        names = ",".join(options).split(",")
        if len(words) > 4 and (kind == "cgroup2" or (kind == "cgroup" and controller in names)):
            yield kind, words[3], words[4].replace("\\040", " ")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # another system, or no such controller
        return ""


def has_exited(pid: int) -> bool:
    """Whether a child has ended; it stays a zombie, so that its number is no other process's yet."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # waited for already
        return True
