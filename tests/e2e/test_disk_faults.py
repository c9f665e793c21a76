"""Whole runs on disks that fail, or that have no locks: resumed, they equal an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.small_suite import write_small_suite
from tests.warm_command import WarmCommand

RUN = ("run", "shapes", "--ckpt", "demo:sft", "-n", "1", "--batch-size", "4", "-q")
pytestmark = pytest.mark.slow


def _drawn(folder: Path) -> dict[str, object]:
    """Tokens and image by key."""
    parts = sorted((folder / "generations").glob("part-*.parquet"))
    rows = [row for path in parts for row in pq.read_table(path).to_pylist()]
    assert len(rows) == len({row["key"] for row in rows})
    return {row["key"]: (row["tokens"], row["image"]["bytes"]) for row in rows}


@pytest.fixture(scope="module")
def undisturbed(warm: WarmCommand, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the prompts of `suite` that nothing happened to."""
    root = tmp_path_factory.mktemp("whole")
    suite = write_small_suite(root / "small.jsonl")
    done = warm.completed((*RUN, "--suite", suite, "--out", root / "run"), 240)
    assert done.returncode == 0, done.stderr
    return root / "run"


@pytest.mark.parametrize(
    ("call", "error", "path", "after"),
    [
        ("fsync", "ENOSPC", "generations", 1),
        ("fsync", "EIO", "verdicts", 1),
        ("rename", "EROFS", "summary.json", 0),
        ("rename", "EIO", "generations", 1),
        ("write", "EIO", "report.html", 0),
        ("write", "ENOSPC", "prompts.parquet", 0),
        ("write", "ENOSPC", "run.json", 0),
    ],
)
def test_a_run_on_a_failing_disk_goes_on_when_it_is_mended(
    sar_eval, tmp_path: Path, suite: Path, undisturbed: Path, faulty_disk, call, error, path, after
) -> None:
    words = (*RUN, "--suite", suite, "--out", tmp_path / "run")
    done = sar_eval(*words, env=faulty_disk(call, error, path, after))
    assert done.returncode == 3, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*.tmp"))
    kept = {part: part.stat().st_mtime_ns for part in (tmp_path / "run").rglob("part-*")}
    again = sar_eval(*words)
    assert again.returncode == 0, again.stderr
    assert (
        kept.items()
        <= {part: part.stat().st_mtime_ns for part in (tmp_path / "run").rglob("part-*")}.items()
    )
    assert _drawn(tmp_path / "run") == _drawn(undisturbed)


@pytest.mark.parametrize(
    ("call", "error", "note"),
    [
        ("flock", "ENOSYS", "has no file locks"),
        ("flock", "OK", "has no file locks"),
        ("fsync", "EINVAL", ""),
    ],
)
def test_a_run_where_locks_or_syncs_are_missing(
    sar_eval, tmp_path: Path, suite: Path, undisturbed: Path, faulty_disk, call, error, note
) -> None:
    done = sar_eval(*RUN, "--suite", suite, "--out", tmp_path / "run", env=faulty_disk(call, error))
    assert done.returncode == 0, done.stderr
    assert note in done.stderr
    assert _drawn(tmp_path / "run") == _drawn(undisturbed)


@pytest.mark.parametrize("error", ["OK", "ENOSYS"])
def test_a_second_start_is_refused_where_locks_keep_nobody_out(
    sar_eval, tmp_path: Path, suite: Path, faulty_disk, error: str
) -> None:
    environment = faulty_disk("flock", error)
    words = [*RUN, "--suite", str(suite), "--out", str(tmp_path / "run")]
    first = subprocess.Popen([sys.executable, "-m", "sar_eval", *words], env=environment)
    while not (tmp_path / "run" / "run.json").exists():
        time.sleep(0.01)
    second = sar_eval(*words, env=environment)
    assert second.returncode == 2, second.stderr
    assert f"process {first.pid} on " in second.stderr
    assert first.wait() == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]


def test_who_died_does_not_keep_the_folder(sar_eval, tmp_path: Path, suite: Path, faulty_disk) -> None:
    environment = faulty_disk("flock", "OK")
    words = [*RUN, "--suite", str(suite), "--out", str(tmp_path / "run")]
    first = subprocess.Popen([sys.executable, "-m", "sar_eval", *words], env=environment)
    while not (tmp_path / "run" / "run.json").exists():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    again = sar_eval(*words, env=environment)
    assert again.returncode == 0, again.stderr
