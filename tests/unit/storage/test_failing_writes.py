"""Every write of a run folder on a disk that fails: told with what to do, and nothing stored is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from sar_eval.errors import SarEvalError
from sar_eval.storage.files import write_bytes, write_json
from sar_eval.storage.lock import run_lock
folder = Path(sys.argv[1])
try:
    with run_lock(folder) as note:
        print(note)
        write_json(folder / "run.json", {})
        write_bytes(folder / "generations" / "part-000000-0000000000000000.parquet", b"new" * 5000)
        write_json(folder / "summary.json", {"new": 1})
except SarEvalError as error:
    sys.exit(f"{error.exit_code} {error}")
"""


def _write(folder: Path, environment: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", CODE, str(folder)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock")
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("call", "error", "path", "message"),
    [
        ("open", "EROFS", "run.lock", "cannot write .*run.lock: the disk is read-only"),
        ("open", "EMFILE", "generations", "too many open files"),
        ("write", "ENOSPC", "generations", "the disk is full"),
        ("write", "EIO", "summary.json", "the disk failed"),
        ("fsync", "EIO", "generations", "the disk failed"),
        ("fsync", "ENOSPC", "run.json", "the disk is full"),
        ("rename", "EROFS", "summary.json", "the disk is read-only"),
        ("mkdir", "EDQUOT", "generations", "your quota"),
        ("flock", "EIO", "run.lock", "the disk failed"),
    ],
)
@pytest.mark.slow
def test_a_write_that_fails_is_told_and_what_was_there_stays(
    tmp_path: Path, faulty_disk, call: str, error: str, path: str, message: str
) -> None:
    if call != "mkdir":  # else it is there
        (tmp_path / "generations").mkdir()
    (tmp_path / "run.json").write_text("{}\n")
    (tmp_path / "summary.json").write_text("old")
    before = _contents(tmp_path)
    done = _write(tmp_path, faulty_disk(call, error, path))
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("3 cannot write ")
    assert message.removeprefix("cannot write .*") in done.stderr
    assert "run the same command again" in done.stderr
    assert before.items() <= _contents(tmp_path).items()
    assert not list(tmp_path.rglob("*.tmp"))
    assert _write(tmp_path, None).returncode == 0
    assert set(_contents(tmp_path)) == {"run.json", "summary.json", "part-000000-0000000000000000.parquet"}


@pytest.mark.parametrize(
    ("call", "error", "note"),
    [
        ("fsync", "EINVAL", ""),
        ("fsync", "EOPNOTSUPP", ""),
        ("flock", "ENOSYS", "has no file locks"),
        ("flock", "ENOLCK", "has no file locks"),
    ],
)
def test_what_a_file_system_does_not_have_is_done_without(
    tmp_path: Path, faulty_disk, call: str, error: str, note: str
) -> None:
    done = _write(tmp_path, faulty_disk(call, error))
    assert done.returncode == 0, done.stderr
    assert note in done.stdout
    assert len(_contents(tmp_path)) == 3
