"""Parts are written atomically, and damaged ones are detected by the digest in their name."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput, RunLocked, StorageFailed
from sar_eval.storage.files import write_bytes
from sar_eval.storage.run_folder import PartTable, RunFolder
from sar_eval.storage.schemas import GENERATIONS, generation_from_row, generation_row
from sar_eval.types import Generation, Prompt

PROMPT = Prompt("a", "a ring")


def _rows(number: int, error: str | None = None) -> list[dict]:
    generations = [Generation(f"a/{i}", i, (1, 2, 3), b"png", 0.5, error=error) for i in range(number)]
    return [generation_row(PROMPT, generation, "d") for generation in generations]


@pytest.fixture
def table(tmp_path: Path) -> PartTable:
    return PartTable(tmp_path / "generations", GENERATIONS)


def test_rows_read_back_equal(table: PartTable) -> None:
    table.write(3, _rows(40))
    assert [generation_from_row(row) for row in table.rows()] == [
        Generation(f"a/{i}", i, (1, 2, 3), b"png", 0.5) for i in range(40)
    ]
    assert pq.ParquetFile(table.paths()[0]).metadata.num_row_groups == 3


def test_a_part_is_replaced_by_a_newer_one(table: PartTable) -> None:
    table.write(0, _rows(2, "failed"))
    assert table.finished_blocks({0: {"a/0", "a/1"}}) == set()
    table.write(0, _rows(2))
    assert len(table.paths()) == 1
    assert table.finished_blocks({0: {"a/0", "a/1"}}) == {0}
    assert table.finished_blocks({0: {"a/0"}}) == set()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_parts_are_found_and_removed(table: PartTable, damage: str) -> None:
    good, bad = table.write(0, _rows(2)), table.write(1, _rows(3))
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 4
    bad.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    assert table.damaged_parts() == [bad]
    (table.folder / "part-000009-0123456789abcdef.parquet.77.tmp").write_bytes(b"half")
    assert table.clean() == [bad]
    assert [path.name for path in table.folder.iterdir()] == [good.name]


def test_a_part_that_cannot_be_read_is_named(table: PartTable) -> None:
    path = table.write(0, _rows(2))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match=path.name):
        list(table.rows())


def test_a_full_disk_keeps_what_is_there(table: PartTable, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table.write(0, _rows(2))
    before = path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageFailed, match="the disk is full"):
        table.write(0, _rows(5))
    assert path.read_bytes() == before
    assert [file.name for file in table.folder.iterdir()] == [path.name]


def test_a_really_full_disk(tmp_path: Path) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full on this system")
    with pytest.raises(StorageFailed, match="full"):
        _write_to_dev_full(tmp_path)


def _write_to_dev_full(tmp_path: Path) -> None:
    target = tmp_path / f"x.{os.getpid()}.tmp"
    target.symlink_to("/dev/full")
    write_bytes(tmp_path / "x", b"1" * 100_000)


def test_a_run_has_one_writer(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    code = "\n".join(
        [
            "from pathlib import Path",
            "from sar_eval.storage.run_folder import RunFolder",
            f"with RunFolder(Path({str(folder.path)!r})).lock(): print('held')",
        ]
    )
    with folder.lock():
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "RunLocked" in other.stderr
        with pytest.raises(RunLocked, match="another process works in"), folder.lock():
            pass
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert again.stdout == "held\n"


def test_prompts_read_back_equal(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    prompts = [PROMPT, Prompt("b", "<script>", "t", {"include": [{"class": "ring"}]}, "seen")]
    folder.write_prompts(prompts)
    assert folder.read_prompts() == prompts


def test_a_folder_without_a_valid_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a run folder"):
        RunFolder(tmp_path).read_manifest()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadInput, match="broken"):
        RunFolder(tmp_path).read_manifest()


def test_pandas_reads_the_folder(table: PartTable) -> None:
    table.write(0, _rows(2))
    table.write(1, _rows(3))
    frame = pd.read_parquet(table.folder)
    assert len(frame) == 5
    assert frame["image"][0] == {"bytes": b"png", "path": "a_0.png"}


def test_two_parts_of_one_block_become_one(table: PartTable, tmp_path: Path) -> None:
    failed = table.write(0, _rows(3, "failed"))
    kept = failed.read_bytes()
    good = table.write(0, _rows(3))
    failed.write_bytes(kept)  # as a crash before the removal of the older part leaves it
    assert len(table.paths()) == 2
    assert table.clean() == []
    assert table.paths() == [good]


def test_temporary_files_of_a_crash_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "summary.json.123.tmp").write_text("half")
    with folder.lock():
        assert not list(tmp_path.glob("*.tmp"))
