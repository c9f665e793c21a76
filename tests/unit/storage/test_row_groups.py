"""Rows of Parquet files by range, in any order of ranges."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.row_groups import RowGroups, UnreadableRow


@pytest.mark.parametrize("group_rows", [1, 7, 1000])
def test_ranges_in_any_order(tmp_path: Path, group_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_eval.storage.row_groups.BATCH_ROWS", 5)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": range(100), "x": ["x"] * 100}), path, row_group_size=group_rows)
    rows = RowGroups(path, ["n"])
    assert len(rows) == 100
    ranges = [(0, 100), (99, 100), (50, 40), (100, 120), (3, 500)]
    order = random.Random(0)
    for start, stop in [*ranges, *((order.randrange(100), order.randrange(110)) for _ in range(60))]:
        assert [row["n"] for row in rows.rows(start, stop) if isinstance(row, dict)] == list(range(100))[
            start:stop
        ]


def test_steps_forward_open_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sar_eval.storage.row_groups.BATCH_ROWS", 10)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": range(1000)}), path, row_group_size=500)
    rows, opened = RowGroups(path), []
    iter_batches = rows._file.iter_batches
    monkeypatch.setattr(
        rows,
        "_file",
        type("Spy", (), {"iter_batches": lambda _, *a, **k: opened.append(k) or iter_batches(*a, **k)})(),
    )
    for start in range(0, 1000, 70):
        assert next(rows.rows(start, start + 20)) == {"n": start}
    assert len(opened) == 2


def test_text_that_is_not_utf8_fails_its_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    texts = pa.array([b"a", b"\xff\xfe", b"c"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), path)
    first, second, third = RowGroups(path).rows(0, 3)
    assert (first, third) == ({"text": "a"}, {"text": "c"})
    assert isinstance(second, UnreadableRow)
    assert "utf-8" in second.why


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" * 9 for n in range(5000)]}), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\x55" * 1800
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"rows\.parquet is not a readable Parquet file"):
        list(RowGroups(path).rows(0, 5000))
