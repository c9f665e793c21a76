"""What breaks while a run is under way: workers, disks."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a real tmpfs of a size; mounting it again (`ro`, `size=4m`) changes it."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        where = [str(disk)] if options.startswith("remount") else ["-t", "tmpfs", "tmpfs", str(disk)]
        if os.geteuid() != 0 or subprocess.run(["mount", "-o", options, *where], check=False).returncode:
            pytest.skip("mounting a disk needs root")
        return disk

    yield mount
    subprocess.run(["umount", str(disk)], check=False, capture_output=True)


def _words(suite: Path, out: Path) -> list[object]:
    return [
        "run",
        "shapes",
        "--ckpt",
        "demo:sft",
        "--suite",
        suite,
        "--out",
        out,
        "-n",
        1,
        "--batch-size",
        2,
    ]


@pytest.mark.slow
def test_a_block_that_kills_its_workers_leaves_the_rest_whole(
    sar_eval, suite: Path, tmp_path: Path
) -> None:
    healed = tmp_path / "healed"
    environment = {**os.environ, "SAR_EVAL_TEST_HEALED": str(healed)}
    words = [*_words(suite, tmp_path / "run"), "--engine", f"{HERE / 'faulty_engine.py'}:ENGINE"]
    done = sar_eval(*words, "--json", env=environment)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    counts = [summary[name] for name in ("expected", "generated", "judged", "failed")]
    assert counts == [12, 10, 10, 2]
    assert "counting-000/0: given up after 3 tries: the worker" in summary["problems"][0]
    assert "SIGKILL" in summary["problems"][0]
    assert "2 of 12 images have no result" in done.stderr
    healed.touch()
    again = sar_eval(*words, "--json", env=environment)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["judged"] == 12


@pytest.mark.slow
def test_a_file_that_cannot_grow_is_reported_and_the_rest_is_kept(suite: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    command = [sys.executable, "-m", "sar_eval", *map(str, _words(suite, tmp_path / "run"))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=120
    )
    assert done.returncode == 3, done.stderr
    assert "cannot write" in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*.tmp"))
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_read_only_disk_is_reported_and_what_is_there_is_kept(sar_eval, suite: Path, small_disk) -> None:
    disk = small_disk("size=4m")
    assert sar_eval(*_words(suite, disk / "run")).returncode == 0
    stored = {path: path.read_bytes() for path in disk.rglob("part-*")}
    next(iter(stored)).unlink()
    small_disk("remount,ro")
    done = sar_eval(*_words(suite, disk / "run"))
    assert done.returncode == 3, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    small_disk("remount,rw")
    assert sar_eval(*_words(suite, disk / "run")).returncode == 0
    assert {p.name for p in disk.rglob("part-*")} >= {p.name for p in list(stored)[1:]}


@pytest.mark.slow
def test_a_full_disk_is_reported_and_what_is_there_is_kept(sar_eval, suite: Path, small_disk) -> None:
    disk = small_disk("size=48k")
    done = sar_eval(*_words(suite, disk / "run"))
    assert done.returncode == 3, done.stderr
    assert "the disk is full" in done.stderr
    assert not list((disk / "run").rglob("*.tmp"))
    stored = list((disk / "run" / "generations").glob("part-*"))
    assert 0 < len(stored) < 6
    small_disk("remount,size=4m")
    before = {path: path.stat().st_mtime_ns for path in stored}
    again = sar_eval(*_words(suite, disk / "run"))
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in stored} == before


NOISY = """
import os
import warnings
from sar_eval.judges.shapes import JUDGE as Shapes
print("imported")
class Noisy(Shapes):
    def __init__(self, **options):
        print("made")
        super().__init__(**options)
    def judge(self, items):
        print("judging", flush=True)
        os.write(1, b"written by a library in C\\n")
        warnings.warn("this is slow")
        return super().judge(items)
"""


@pytest.mark.slow
def test_json_stands_alone_on_standard_output(sar_eval, suite: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "INFO", "PYTHONWARNINGS": "always"}
    words = [*_words(suite, tmp_path / "run"), "--judge", f"{tmp_path}/noisy.py:Noisy", "--json"]
    done = sar_eval(*words, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["judged"] == 12
    for noise in ("imported", "made", "judging", "written by a library in C", "this is slow"):
        assert noise in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["ckpt", "info", "demo:sft"], ["doctor"], ["list"]])
def test_other_commands_print_json_alone(sar_eval, words: list[str]) -> None:
    done = sar_eval(*words, "--json")
    assert json.loads(done.stdout)
