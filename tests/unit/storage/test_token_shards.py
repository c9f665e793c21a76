"""Token shards of every kind are read row group by row group; what is wrong with them is named."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.storage.shards import SELECTED_SCHEMA, TOKEN_SCHEMA, write_shards
from sar_eval.storage.token_shards import TokenShards
from sar_eval.train.token_stream import TokenStream, WeightedPlace
from sar_eval.types import DrawProtocol
from tests.small_sets import METADATA, make_set, remove, spec_of

CODES = {"codebook_size": "64", "encoder": METADATA["encoder"]}
NEW = pa.schema(
    [
        *(("tokens", pa.list_(pa.uint16())), ("captions", pa.list_(pa.string()))),
        *(("height", pa.uint16()), ("width", pa.uint16()), ("key", pa.string())),
    ]
)
ROW = {"tokens": [1, 2, 3, 4], "caption": "a ring"}


def new_row(number: int, height: int = 2, width: int = 2, captions: int = 2) -> dict[str, Any]:
    return {
        "tokens": [(number + n) % 64 for n in range(height * width)],
        "captions": [f"picture {number}, told {n}" for n in range(captions)],
        "height": height,
        "width": width,
        "key": f"pictures/{number}.jpg",
    }


def shard(folder: Path, table: pa.Table, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "shard-00000.parquet", **options)
    return folder


def everything(*places: Path | str) -> list[tuple[str, str, list[int], int, int]]:
    shards, found = TokenShards(places), []
    for group in range(len(shards.rows)):
        rows = shards.read(group)
        numbers = np.arange(len(rows))
        found += zip(
            rows.keys(numbers),
            rows.captions(numbers, np.zeros(len(rows))),
            [codes.tolist() for codes in rows.codes(numbers)],
            rows.heights.tolist(),
            rows.widths.tolist(),
            strict=True,
        )
    return found


def test_shards_of_earlier_versions(tmp_path: Path) -> None:
    write_shards([ROW, {"tokens": [9] * 4, "caption": ""}], tmp_path / "a", TOKEN_SCHEMA, metadata=CODES)
    shards = TokenShards([tmp_path / "a"])
    assert (shards.sizes, shards.max_code, shards.codebook_size) == ({(2, 2)}, 9, 64)
    assert shards.metadata == CODES
    where = f"{tmp_path / 'a'}/shard-00000.parquet"
    assert everything(tmp_path / "a") == [
        (f"{where}:0", "a ring", [1, 2, 3, 4], 2, 2),
        (f"{where}:1", "", [9] * 4, 2, 2),
    ]


def test_shards_of_select_name_their_draws(tmp_path: Path) -> None:
    rows = [{**ROW, "score": 0.5, "draw": "run/ring/0"}]
    write_shards(rows, tmp_path / "a", SELECTED_SCHEMA, metadata=CODES)
    assert everything(tmp_path / "a") == [("run/ring/0", "a ring", [1, 2, 3, 4], 2, 2)]


@pytest.mark.parametrize("statistics", [True, False])
def test_pictures_of_several_sizes_and_captions(tmp_path: Path, statistics: bool) -> None:
    rows = [new_row(n, *((2, 2), (1, 4), (3, 2))[n % 3]) for n in range(10)]
    table = pa.Table.from_pylist(rows, NEW.with_metadata(CODES))
    shard(tmp_path / "a", table, row_group_size=4, write_statistics=statistics)
    shards = TokenShards([tmp_path / "a"])
    assert shards.sizes == {(2, 2), (1, 4), (3, 2)}
    assert shards.rows.tolist() == [4, 4, 2]
    assert shards.max_code == (13 if statistics else None)
    assert everything(tmp_path / "a") == [
        (row["key"], row["captions"][0], row["tokens"], row["height"], row["width"]) for row in rows
    ]
    last = shards.read(2).captions(np.arange(2), np.array([0.49, 0.99]))
    assert last == ["picture 8, told 0", "picture 9, told 1"]
    assert pickle.loads(pickle.dumps(shards)).rows.tolist() == [4, 4, 2]


def test_the_highest_code_is_looked_for_where_nothing_says_it(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([ROW, {**ROW, "tokens": [70_000, 0, 0, 0]}], TOKEN_SCHEMA)
    shard(tmp_path / "a", table, write_statistics=False)
    shards = TokenShards([tmp_path / "a"])
    assert (shards.max_code, shards.codebook_size, shards.code_type) == (70_000, None, np.uint32)


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_a_set_without_what_was_removed(tmp_path: Path, layout: str) -> None:
    made = make_set(tmp_path, layout=layout)
    remove(tmp_path, [(0, 0), (0, 5), (9, 0)])
    left = [row for row in made if row.row not in (0, 9)]
    assert everything(tmp_path) == [
        (f"{row.row}/{row.index}", row.text, list(row.tokens or ()), 4, 4) for row in left
    ]
    assert TokenShards([tmp_path]).rows.tolist() == [3, 3]
    assert TokenShards([tmp_path]).metadata == CODES


def test_a_set_in_a_bucket_beside_shards(tmp_path: Path) -> None:
    uri = f"memory://{tmp_path}/set"
    made = make_set(uri)
    rows = [{**new_row(n, 4, 4), "tokens": [n] * 16} for n in range(2)]
    store = open_store(f"memory://{tmp_path}/shards")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, NEW.with_metadata(CODES)), sink)
    store.write("shard-000000.parquet", sink.getvalue().to_pybytes())
    assert [row[0] for row in everything(uri, store.uri)] == [
        *(f"{row.row}/{row.index}" for row in made),
        *("pictures/0.jpg", "pictures/1.jpg"),
    ]


def test_codes_of_several_tokenizers(tmp_path: Path) -> None:
    write_shards([ROW], tmp_path / "a", TOKEN_SCHEMA, metadata=CODES)
    for name, other in [("b", {**CODES, "encoder": "f" * 16}), ("c", {})]:
        write_shards([ROW], tmp_path / name, TOKEN_SCHEMA, metadata=other)
        with pytest.raises(BadInput, match=rf"{name}/shard-00000\.parquet was made with"):
            TokenShards([tmp_path / "a", tmp_path / name])
        with pytest.raises(BadInput, match=rf"{name} was made with"):
            TokenStream(
                [WeightedPlace(tmp_path / "a", 1), WeightedPlace(tmp_path / name, 1)],
                seed=0,
                window=9,
                caption_dropout=0,
            )


def test_places_without_rows(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no shard-.*and no set in"):
        TokenShards([tmp_path])
    with pytest.raises(BadInput, match="no rows in"):
        TokenShards([shard(tmp_path / "empty", pa.Table.from_pylist([], TOKEN_SCHEMA))])
    ImageSet(open_store(tmp_path / "begun")).begin({"format": 1})
    with pytest.raises(BadInput, match="holds no picture yet"):
        TokenShards([tmp_path / "begun"])
    make_set(tmp_path / "pixels", keep="pixels")
    make_set(tmp_path / "tars", keep="pixels", layout="webdataset")
    for name in ("pixels", "tars"):
        with pytest.raises(BadInput, match="make the set with --keep tokens or both"):
            TokenShards([tmp_path / name])
    write_shards([ROW], tmp_path / "made", TOKEN_SCHEMA)
    (tmp_path / "made" / "tokenization.json").write_text("{}")
    with pytest.raises(BadInput, match="is not finished"):
        TokenShards([tmp_path / "made"])


CAPTIONS: dict[str, Any] = {"captions": [["x"]]}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no captions": ({"tokens": [[1]]}, "has no column caption"),
    "text": ({"tokens": ["1 2"], "caption": ["x"]}, "cannot be read as a shard"),
    "lists of text": ({"tokens": [["one"]], "caption": ["x"]}, "cannot be read as a shard"),
    "large": ({"tokens": [[2**40]], "caption": ["x"]}, "there is the code 1099511627776"),
    "negative": ({"tokens": [[1, -2, 3, 4]], "caption": ["x"]}, "have the code -2"),
    "no tokens": (
        {"tokens": pa.array([None], pa.list_(pa.int32())), "caption": ["x"]},
        "without tokens|no square",
    ),
    "a hole": ({"tokens": pa.array([[None]], pa.list_(pa.int32())), "caption": ["x"]}, "without tokens"),
    "null": ({"tokens": [[1]], "caption": pa.array([None], pa.string())}, "1 rows without caption"),
    "no text": ({"tokens": [[1]], "caption": [{"a": 1}]}, "cannot be read as a caption"),
    "bytes": ({"tokens": [[1]], "caption": pa.array([b"\xff"])}, "cannot be read as a caption"),
    "no caption": (
        {"tokens": [[1]], "captions": pa.array([[]], pa.list_(pa.string())), "height": [1], "width": [1]},
        "1 rows without captions",
    ),
    "empty": ({"tokens": pa.array([[]], pa.list_(pa.int32())), "caption": ["x"]}, "no square"),
    "no square": ({"tokens": [[1, 2, 3]], "caption": ["x"]}, "rows of 3 tokens: no square"),
    "lengths": ({"tokens": [[1], [1, 2]], "caption": ["x", "y"]}, "rows of several lengths"),
    "lengths by chance": ({"tokens": [[1] * 3, [1] * 5], "caption": ["x", "y"]}, "rows of 3 tokens"),
    "no width": ({"tokens": [[1]], **CAPTIONS, "height": [1]}, "has no column width"),
    "no rectangle": ({"tokens": [[1]], **CAPTIONS, "height": [2], "width": [1]}, "no 2 x 1 picture"),
    "text as size": ({"tokens": [[1]], **CAPTIONS, "height": ["a"], "width": [1]}, "damaged|not a whole"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_rows_of_another_kind_are_named(tmp_path: Path, kind: str) -> None:
    columns, message = WRONG[kind]
    folder = shard(tmp_path / "a", pa.table(columns))
    with pytest.raises(BadInput, match=rf"shard-00000\.parquet.*({message})"):
        everything(folder)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [({"codebook_size": "many"}, "use 'many' codes"), ({"codebook_size": "9" * 5000}, "no number")],
)
def test_metadata_that_is_no_size(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    write_shards([ROW], tmp_path / "a", TOKEN_SCHEMA, metadata=metadata)
    with pytest.raises(BadInput, match=message):
        TokenShards([tmp_path / "a"])


def test_a_code_that_the_tokenizer_has_not(tmp_path: Path) -> None:
    write_shards([{**ROW, "tokens": [1, 2, 3, 64]}], tmp_path / "a", TOKEN_SCHEMA, metadata=CODES)
    with pytest.raises(BadInput, match="there is the code 64; codes are 0 to 63"):
        everything(tmp_path / "a")


@pytest.mark.parametrize("damage", ["cut", "text", "folder", "flipped"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    write_shards([ROW] * 900, tmp_path / "a", TOKEN_SCHEMA, metadata=CODES)
    path = tmp_path / "a" / "shard-00000.parquet"
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        changed = {"cut": data[:-9], "text": b"no Parquet", "flipped": data[:4] + bytes(40) + data[44:]}
        path.write_bytes(changed[damage])
    with pytest.raises(BadInput, match=r"shard-00000\.parquet"):
        everything(tmp_path / "a")


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_a_set_of_rectangles_is_not_read_as_squares(tmp_path: Path, layout: str) -> None:
    """Its rows do not say their size: 16 codes of 2 x 8 would be taken for 4 x 4."""
    protocol = DrawProtocol("demo", 64, width=16, height=64)
    make_set(tmp_path / "set", spec=spec_of(layout=layout, protocol=protocol).to_json(), layout=layout)
    with pytest.raises(BadInput, match=r"has pictures of 16x64 pixels .* `sar-eval train tokenize`"):
        TokenShards([tmp_path / "set"])
