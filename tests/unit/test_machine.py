"""Cores and memory under control groups of both versions, as containers and batch systems mount them."""

from pathlib import Path

import pytest

from sar_eval import machine

V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 23 0:28 {root} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
)


def _system(root: Path, mounts: str, own: str, files: dict[str, str]) -> None:
    known = {"proc/self/mountinfo": mounts, "proc/self/cgroup": own}
    for name, text in (known | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system of its own, on 64 cores with 1 GB free."""
    groups = machine.groups
    monkeypatch.setattr(machine, "groups", lambda controller: groups(controller, tmp_path))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(machine, "_available", lambda: 10**9)
    return tmp_path


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {}, 64),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "50000 100000"}, 1),
        ("0::/kubepods/host/path", {"cpu.max": "400000 100000"}, 4),  # of the host, not mounted here
        ("0::/../other", {"cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "broken"}, 64),
        ("0::/", {"cpu.max": "9900000 100000"}, 64),
        ("", {"cpu.max": "200000 100000"}, 64),
    ],
)
def test_cores_of_version_2(root: Path, own: str, files: dict[str, str], cores: int) -> None:
    _system(root, V2, own, {"a/b/cgroup.procs": "", **files})
    assert machine.cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 64), ("300000", 3), ("10000", 1), ("", 64)])
def test_cores_of_version_1(root: Path, quota: str, cores: int) -> None:
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": quota, "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}
    _system(root, V1.format(root="/"), "4:memory:/\n3:cpu,cpuacct:/job\n0::/", files)
    assert machine.cores() == cores


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 10**9),
        ({"memory.max": "max", "memory.current": "5"}, 10**9),
        ({"memory.max": "1000", "memory.current": "400"}, 600),
        ({"memory.max": "1000", "memory.current": "900", "memory.stat": "file 9\ninactive_file 300"}, 400),
        ({"memory.max": "1000", "memory.current": "1200"}, 0),
        ({"job/memory.max": "5000", "memory.max": "3000", "memory.current": "1000"}, 2000),
    ],
)
def test_memory_of_version_2(root: Path, files: dict[str, str], free: int) -> None:
    _system(root, V2, "0::/job", {"job/cgroup.procs": "", **files})
    assert machine.free_memory() == free


@pytest.mark.parametrize("mounted", ["/", "/docker/abc"])
def test_memory_of_version_1(root: Path, mounted: str) -> None:
    """In a container the mount's root is the container's own group."""
    inside = "" if mounted != "/" else "docker/abc/"
    files = {
        f"memory/{inside}memory.limit_in_bytes": "1000",
        f"memory/{inside}memory.usage_in_bytes": "700",
        f"memory/{inside}memory.stat": "inactive_file 1\ntotal_inactive_file 200",
    }
    _system(root, V1.format(root=mounted), "4:memory:/docker/abc", files)
    assert machine.free_memory() == 500
    _system(root, V1.format(root=mounted), "4:memory:/docker/abc", {next(iter(files)): str(2**63 - 4096)})
    assert machine.free_memory() == 10**9


def test_this_machine() -> None:
    assert machine.cores() >= 1
    assert 0 < machine.free_memory() < 1 << 50
