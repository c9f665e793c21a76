"""Shards of captioned pictures and tokens: written whole or not at all, and what is wrong is named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.shards import IMAGE_SCHEMA, TOKEN_SCHEMA, read_images, read_shards, write_shards


def _text(path: Path) -> None:
    path.write_text("this is no Parquet file")


def _cut(path: Path) -> None:
    pq.write_table(pa.table({"tokens": [[1]], "caption": ["x"]}), path)
    path.write_bytes(path.read_bytes()[:-9])


def _flipped(path: Path) -> None:
    pq.write_table(pa.table({"tokens": [[1]], "caption": ["x"]}), path)
    data = bytearray(path.read_bytes())
    data[-60:-20] = bytes(40)
    path.write_bytes(bytes(data))


NO_SHARDS: dict[str, Callable[[Path], Any]] = {
    "text": _text,
    "empty": Path.touch,
    "cut": _cut,
    "flipped": _flipped,
    "folder": Path.mkdir,
    "dangling": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("kind", NO_SHARDS)
def test_a_shard_that_is_no_parquet_file_is_named(tmp_path: Path, kind: str) -> None:
    NO_SHARDS[kind](tmp_path / "shard-00000.parquet")
    with pytest.raises(BadInput, match=r"shard-00000\.parquet"):
        list(read_shards([tmp_path], TOKEN_SCHEMA))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tokens": [[1]]}, "has no column caption"),
        ({"tokens": ["1 2"], "caption": ["x"]}, "cannot be read as a shard"),
        ({"tokens": [["one"]], "caption": ["x"]}, "cannot be read as a shard"),
        ({"tokens": [[2**40]], "caption": ["x"]}, "cannot be read as a shard"),
        ({"tokens": [None], "caption": ["x"]}, "1 rows without tokens"),
        ({"tokens": [[None]], "caption": ["x"]}, "1 rows without tokens"),
        ({"tokens": [[1]], "caption": pa.array([None], pa.string())}, "1 rows without caption"),
        ({"tokens": [[1]], "caption": [{"a": 1}]}, "cannot be read as a shard"),
        ({"tokens": [[1]], "caption": pa.array([b"\xff"]).cast(pa.binary())}, "cannot be read as a shard"),
    ],
)
def test_columns_of_another_kind_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "shard-00000.parquet")
    with pytest.raises(BadInput, match=rf"shard-00000\.parquet.*{message}"):
        list(read_shards([tmp_path], TOKEN_SCHEMA))


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40), None])
def test_images_that_cannot_be_read_are_named(tmp_path: Path, data: bytes | None) -> None:
    rows = [{"image": {"bytes": data, "path": "x.png"}, "caption": "a ring"}]
    write_shards(rows, tmp_path / "images", IMAGE_SCHEMA)
    with pytest.raises(BadInput, match="unreadable image with caption 'a ring'"):
        list(read_images([tmp_path / "images"]))


def _rows(end: int, stop: int = -1) -> Iterator[dict[str, Any]]:
    for number in range(end):
        if number == stop:
            raise KeyboardInterrupt
        yield {"tokens": [number], "caption": "a ring"}


def test_interrupted_shards_are_written_again(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "shards"
    with pytest.raises(KeyboardInterrupt):
        write_shards(_rows(9, stop=8), out, TOKEN_SCHEMA, rows_per_shard=2)
    assert not out.exists(), "an interrupted write leaves no incomplete folder"
    assert write_shards(_rows(5), out, TOKEN_SCHEMA, rows_per_shard=2) == 5
    assert [path.name for path in out.parent.iterdir()] == ["shards"]
    tokens = [row for table in read_shards([out], TOKEN_SCHEMA) for row in table["tokens"].to_pylist()]
    assert tokens == [[0], [1], [2], [3], [4]], "nothing is left of the first try"


def test_shards_go_to_empty_folders_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert write_shards(_rows(1), tmp_path / "link", TOKEN_SCHEMA) == 1
    assert (tmp_path / "empty" / "shard-00000.parquet").is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (
        ("empty", "already has"),
        ("full", "already has"),
        ("file/below", "cannot make the folder|already has"),
    ):
        with pytest.raises(BadInput, match=message):
            write_shards(_rows(1), tmp_path / name, TOKEN_SCHEMA)
    assert not list(tmp_path.glob("*.part"))
    assert (tmp_path / "file").read_text() == "mine"
