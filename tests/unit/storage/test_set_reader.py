"""Sets are read by their done-records, less what was removed, and `train` reads them like shards."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_reader import open_set
from sar_eval.storage.shards import IMAGE_SCHEMA, TOKEN_SCHEMA, read_images, read_shards, write_shards
from tests.small_sets import METADATA, commit_block, data_row, make_set, remove

CODES = {"codebook_size": "64", "encoder": METADATA["encoder"]}
LAYOUTS = ["parquet", "webdataset"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_set_is_read_in_order(tmp_path: Path, layout: str) -> None:
    made = make_set(tmp_path / "set", layout=layout)
    found = list(open_set(tmp_path / "set").rows())
    assert [row for _, _, row in found] == made
    assert [(part.number, position) for part, position, _ in found] == [
        (b, p) for b in (0, 2) for p in range(4)
    ]
    assert [row for _, _, row in open_set(tmp_path / "set").rows(first=1)] == made[4:]


def test_only_the_last_attempt_counts_and_only_what_is_committed(tmp_path: Path) -> None:
    made = make_set(tmp_path)
    store = open_store(tmp_path)
    store.write("data/part-000000009-0123456789abcdef.parquet", b"an orphan of a lost race")
    commit_block(ImageSet(store), 2, [data_row(11)], attempt=1)
    assert [row for _, _, row in open_set(tmp_path).rows()] == [*made[:4], data_row(11)]


def test_removed_draws_are_left_out(tmp_path: Path) -> None:
    made = make_set(tmp_path)
    remove(tmp_path, [(0, 0), (0, 5), (9, 0)])
    remove(tmp_path, [(9, 0), (11, 0)], name="1" * 16)
    left = [row for row in made if row.row not in (0, 9, 11)]
    assert [row for _, _, row in open_set(tmp_path).rows()] == left
    assert [row for _, _, row in open_set(tmp_path).rows(first=2)] == left[3:]
    captions = [
        caption
        for table in read_shards([tmp_path], TOKEN_SCHEMA)
        for caption in table["caption"].to_pylist()
    ]
    assert captions == [row.text for row in left]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_reads_a_set_like_shards(tmp_path: Path, layout: str) -> None:
    """With the text that was asked as the caption, from a folder or a URI, beside shards."""
    uri = "memory://" + str(tmp_path)
    made = make_set(uri, layout=layout)
    rows = [{"tokens": list(row.tokens or ()), "caption": row.text} for row in made]
    tables = list(read_shards([uri], TOKEN_SCHEMA))
    assert all(table.schema.equals(TOKEN_SCHEMA) for table in tables)
    assert [row for table in tables for row in table.to_pylist()] == rows
    write_shards(rows[:1], tmp_path / "shards", TOKEN_SCHEMA, metadata=CODES)
    assert sum(len(table) for table in read_shards([tmp_path / "shards", uri], TOKEN_SCHEMA)) == 9
    images = list(read_images([uri]))
    assert [caption for _, caption in images] == [row.text for row in made]
    assert images[0][0].shape == (8, 8, 3)


def test_pictures_of_a_set_have_their_pixels(tmp_path: Path) -> None:
    import io

    made = make_set(tmp_path, keep="pixels")
    with Image.open(io.BytesIO(made[0].image or b"")) as image:
        assert np.array_equal(next(read_images([tmp_path]))[0], np.asarray(image))


def test_what_a_set_lacks_is_named(tmp_path: Path) -> None:
    make_set(tmp_path / "pixels", keep="pixels")
    with pytest.raises(BadInput, match=r"has no column tokens: make the set with --keep tokens or both"):
        list(read_shards([tmp_path / "pixels"], TOKEN_SCHEMA))
    make_set(tmp_path / "tar", keep="tokens", layout="webdataset")
    with pytest.raises(BadInput, match="4 rows without image"):
        list(read_shards([tmp_path / "tar"], IMAGE_SCHEMA))
    ImageSet(open_store(tmp_path / "begun")).begin({"format": 1})
    with pytest.raises(BadInput, match="holds no picture yet"):
        list(read_shards([tmp_path / "begun"], TOKEN_SCHEMA))
    with pytest.raises(BadInput, match=r"no shard-.*and no set in"):
        list(read_shards([tmp_path / "nothing"], TOKEN_SCHEMA))


def test_damaged_and_lost_objects_are_named(tmp_path: Path) -> None:
    make_set(tmp_path, keep="tokens")
    path = next((tmp_path / "data").glob("part-000000002-*"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match="data/part-000000002"):
        list(read_shards([tmp_path], TOKEN_SCHEMA))
    path.unlink()
    with pytest.raises(BadInput, match="data/part-000000002"):
        list(open_set(tmp_path).rows())
