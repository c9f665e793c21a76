"""Parts are written atomically, and damaged ones are detected by the digest in their name."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput, RunLocked, StorageFailed
from sar_eval.storage import prompt_table
from sar_eval.storage.files import write_bytes
from sar_eval.storage.parts import PartTable
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import GENERATIONS, generation_facts, generation_from_row, generation_row
from sar_eval.types import Generation, Prompt
from tests.stored_runs import begin_run

PROMPT = Prompt("a", "a ring")


def _rows(number: int, error: str | None = None) -> list[dict]:
    generations = [Generation(f"a/{i}", i, (1, 2, 3), b"png", 0.5, error=error) for i in range(number)]
    return [generation_row(PROMPT, generation, "d") for generation in generations]


@pytest.fixture
def table(tmp_path: Path) -> PartTable:
    return PartTable(tmp_path / "generations", GENERATIONS)


def _write(table: PartTable, block: int, rows: list[dict]) -> Path:
    facts = generation_facts(rows, "d")
    return table.write(block, rows, facts).path


def test_rows_read_back_equal(table: PartTable) -> None:
    _write(table, 3, _rows(40))
    assert [generation_from_row(row) for row in table.rows()] == [
        Generation(f"a/{i}", i, (1, 2, 3), b"png", 0.5) for i in range(40)
    ]


@pytest.mark.parametrize(("size", "groups"), [(3, 1), (90_000, 1), (150_000, 2), (300_000, 3)])
def test_one_image_is_read_without_all_others(table: PartTable, size: int, groups: int) -> None:
    images = [bytes([i]) * size for i in range(40)]
    made = [Generation(f"a/{i}", i, image=image) for i, image in enumerate(images)]
    path = _write(table, 0, [generation_row(PROMPT, generation, "d") for generation in made])
    assert pq.ParquetFile(path).metadata.num_row_groups == groups
    assert table.images_at(path, [39, 0, 17]) == [images[39], images[0], images[17]]


def test_an_image_in_a_damaged_page_is_refused(table: PartTable) -> None:
    path = _write(table, 0, _rows(4))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"png", b"pmg"))
    with pytest.raises(BadInput, match="is damaged"):
        table.images_at(path, [1])


def test_a_part_is_replaced_by_a_newer_one(table: PartTable) -> None:
    _write(table, 0, _rows(2, "failed"))
    assert (facts := table.parts()[0].facts) is not None
    assert (facts.rows, facts.errors, facts.made_for) == (2, 2, "d")
    _write(table, 0, _rows(2))
    assert len(table.paths()) == 1
    assert (facts := table.parts()[0].facts) is not None
    assert (facts.rows, facts.errors, facts.sums["rows_with_steps"]) == (2, 0, 0)


@pytest.mark.parametrize("block", [0, 999, 1000, 123_456, 999_999, 1_000_000, 12_345_678])
def test_a_part_is_found_by_its_block_whatever_its_number(table: PartTable, block: int) -> None:
    path = _write(table, block, _rows(2))
    _write(table, block + 1, _rows(1))
    assert table.part(block) == table.parts()[block]
    assert table.part(block).path == path
    assert len(table.read_block(block)) == 2
    assert list(table.parts()) == [block, block + 1]
    assert len(list(path.parent.iterdir())) <= 2
    assert len(list(table.rows(["key"]))) == 3


def test_parts_of_earlier_versions_lie_in_one_folder(table: PartTable) -> None:
    for block in (3, 1234):
        path = _write(table, block, _rows(2))
        path.rename(table.folder / path.name)
    earlier = PartTable(table.folder, GENERATIONS)
    assert list(earlier.parts()) == [3, 1234]
    assert len(earlier.read_block(1234)) == 2
    _write(earlier, 1234, _rows(1))  # replaces the one that lies there
    assert [len(earlier.read_block(block)) for block in (3, 1234)] == [2, 1]
    assert len(earlier.paths()) == 2


def test_columns_are_read_without_the_images_and_flips_are_found(table: PartTable) -> None:
    image = np.random.default_rng(0).integers(0, 256, 2_000_000, dtype=np.uint8).tobytes()
    rows = [generation_row(PROMPT, Generation(f"a/{i}", i, (1, 2), image), "d") for i in range(2)]
    path = _write(table, 0, rows)
    assert path.stat().st_size < 2 * len(image) + 50_000  # nothing is stored twice
    data = bytearray(path.read_bytes())
    data[data.index(image[:64]) + 1000] ^= 1  # inside the image
    path.write_bytes(data)
    assert table.read(path, ["key", "error"]).num_rows == 2
    with pytest.raises(BadInput, match="the bytes of an image do not match its digest"):
        table.read(path, ["image"])
    assert table.damaged_parts() == [path]
    start = data.index(b"a/0")
    data[start] ^= 1  # inside a key
    path.write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        table.read(path, ["key"])


def test_a_footer_whose_facts_were_changed_is_not_believed(table: PartTable) -> None:
    path = _write(table, 0, _rows(2, "failed"))
    data = path.read_bytes()
    assert b'"errors": 2' in data
    path.write_bytes(data.replace(b'"errors": 2', b'"errors": 0'))
    assert table.parts()[0].facts is None


def test_a_folder_that_was_moved_is_not_made_again(table: PartTable, tmp_path: Path) -> None:
    """A run folder that is renamed while workers draw keeps what it has; nobody writes a second one."""
    root = tmp_path / "run"
    root.mkdir()
    moved = PartTable(root / "generations", GENERATIONS, root)
    _write(moved, 0, _rows(2))
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed, match="No such file"):
        _write(moved, 1, _rows(2))
    assert not root.exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_parts_are_found_and_removed(table: PartTable, damage: str) -> None:
    good, bad = _write(table, 0, _rows(2)), _write(table, 1, _rows(3))
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 4
    bad.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    assert table.damaged_parts() == [bad]
    (table.folder / "part-000009-0123456789abcdef.parquet.77.tmp").write_bytes(b"half")
    assert table.clean() == [bad]
    assert [path.name for path in table.folder.iterdir()] == [good.name]


def test_a_part_that_cannot_be_read_is_named(table: PartTable) -> None:
    path = _write(table, 0, _rows(2))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match=path.name):
        list(table.rows())


def test_a_full_disk_keeps_what_is_there(table: PartTable, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(table, 0, _rows(2))
    before = path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageFailed, match="the disk is full"):
        _write(table, 0, _rows(5))
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
    prompts = [PROMPT, Prompt("b", "<script>", "t", {"include": [{"class": "ring"}]}, "seen")]
    _, folder = begin_run(tmp_path, prompts)
    assert list(folder.prompts()) == prompts
    assert folder.prompts()[1] == prompts[1]
    assert folder.prompts()[-2:] == prompts


def test_prompts_are_read_by_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_table, "ROWS_PER_GROUP", 7)
    prompts = [Prompt(f"p{i}", f"text {i}") for i in range(40)]
    _, folder = begin_run(tmp_path, prompts)
    stored = folder.prompts()
    assert len(stored) == 40
    for start, stop in ((0, 1), (5, 9), (6, 7), (7, 14), (13, 30), (38, 99), (40, 50)):
        assert stored[start:stop] == prompts[start:stop]


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_changed_prompts_are_told(tmp_path: Path, position: int) -> None:
    _, folder = begin_run(tmp_path, [PROMPT, Prompt("b", "a star", "t", {"n": 1}, "seen")])
    path = tmp_path / "prompts.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) * position // 100] ^= 2
    path.write_bytes(data)
    with pytest.raises(BadInput, match="was changed or damaged"):
        folder.prompts()


def test_changed_prompts_of_an_earlier_version_are_told(tmp_path: Path) -> None:
    """Its run.json has no digest of the file, but that of the suite."""
    _, folder = begin_run(tmp_path, [PROMPT])
    folder.write_manifest(replace(folder.read_manifest(), prompts=None))
    assert len(folder.prompts()) == 1
    folder.write_prompts([replace(PROMPT, tag="another")])
    with pytest.raises(BadInput, match="was changed or damaged"):
        folder.prompts()


@pytest.mark.parametrize("bad", ["../x", "/etc/passwd", "a/b", "", "x" * 300])
def test_ids_are_checked_when_they_are_read(tmp_path: Path, bad: str) -> None:
    _, folder = begin_run(tmp_path, [Prompt(bad, "a ring")])
    with pytest.raises(BadInput, match="not safe as a file name"):
        list(folder.prompts())


def test_a_folder_without_a_valid_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a run folder"):
        RunFolder(tmp_path).read_manifest()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadInput, match="broken"):
        RunFolder(tmp_path).read_manifest()


def test_pandas_reads_the_folder(table: PartTable) -> None:
    _write(table, 0, _rows(2))
    _write(table, 1, _rows(3))
    frame = pd.read_parquet(table.folder)
    assert len(frame) == 5
    assert frame["image"][0] == {"bytes": b"png", "path": "a_0.png"}


def test_two_parts_of_one_block_become_one(table: PartTable, tmp_path: Path) -> None:
    failed = _write(table, 0, _rows(3, "failed"))
    kept = failed.read_bytes()
    good = _write(table, 0, _rows(3))
    failed.write_bytes(kept)  # as a crash before the removal of the older part leaves it
    assert len(table.paths()) == 2
    assert table.clean() == []
    assert table.paths() == [good]


def test_temporary_files_of_a_crash_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "summary.json.123.tmp").write_text("half")
    with folder.lock():
        assert not list(tmp_path.glob("*.tmp"))
