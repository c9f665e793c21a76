"""A repacked set: even objects, the same bytes after any stop, and a source that changed is noticed."""

import hashlib
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, StorageFailed
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import ObjectStore, open_store
from sar_eval.storage.set_reader import SetReader, open_set
from sar_eval.storage.shards import TOKEN_SCHEMA, read_shards
from sar_eval.storage.token_shards import TokenShards
from sar_eval.synthesis.card import write_card
from sar_eval.synthesis.repack import RepackOptions, repack
from tests.small_sets import METADATA, commit_block, data_row, make_set, remove, spec_of

OPTIONS = RepackOptions(rows=5, layout="parquet")


def digests(place: Path | str) -> dict[str, str]:
    store = open_store(place)
    return {i.name: hashlib.sha256(store.read(i.name)).hexdigest() for i in store.list("")}


@pytest.mark.parametrize("source", ["parquet", "webdataset"])
@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_objects_are_even(tmp_path: Path, source: str, layout: str) -> None:
    made = make_set(tmp_path / "set", blocks=5, layout=source)
    told: list[int] = []
    found = repack(
        open_set(tmp_path / "set"), open_store(tmp_path / "out"), RepackOptions(5, layout), told.append
    )
    assert [part.rows for part in found.parts] == [5, 5, 5, 1]
    assert told == [0, 5, 10, 15, 16]
    assert [row for _, _, row in open_set(tmp_path / "out").rows()] == made
    names = [info.name for info in open_store(tmp_path / "out").list("")]
    assert names == [*(part.name for part in found.parts), "repack.json", "repack/begun.json"]


def test_removed_rows_are_gone_and_training_reads_the_rest(tmp_path: Path) -> None:
    made = make_set(tmp_path / "set")
    remove(tmp_path / "set", [(1, 0), (3, 0)])
    repack(open_set(tmp_path / "set"), open_store(tmp_path / "out"), OPTIONS)
    texts = [
        text
        for table in read_shards([tmp_path / "out"], TOKEN_SCHEMA)
        for text in table["caption"].to_pylist()
    ]
    assert texts == [row.text for row in made if row.row not in (1, 3)]
    assert TokenShards([tmp_path / "out"]).metadata["encoder"] == METADATA["encoder"]
    assert "6 pictures" in write_card(open_store(tmp_path / "out"))


def test_objects_end_before_they_are_too_large(tmp_path: Path) -> None:
    make_set(tmp_path / "set", side=512)  # noise: 786,432 bytes each
    found = repack(
        open_set(tmp_path / "set"), open_store(tmp_path / "out"), RepackOptions(100, "parquet", mib=2)
    )
    assert [part.rows for part in found.parts] == [2, 2, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_a_stop_anywhere_changes_no_byte(tmp_path: Path, layout: str) -> None:
    """After each write in turn the disk fails; the same call then finishes the copy."""
    place = f"memory://{tmp_path}"
    make_set(f"{place}/set", blocks=5)
    remove(f"{place}/set", [(2, 0), (15, 0)])
    options, source = RepackOptions(3, layout), open_set(f"{place}/set")
    repack(source, open_store(f"{place}/whole"), options)
    for writes in range(11):  # five objects, a note on each, and the list of them
        out = f"{place}/out-{writes}"
        with pytest.raises(StorageFailed):
            repack(source, _failing_after(writes, open_store(out)), options)
        assert not open_store(out).exists("repack.json")
        repack(source, open_store(out), options)
        assert digests(out) == digests(f"{place}/whole")


def _failing_after(writes: int, store: ObjectStore) -> ObjectStore:
    left, write = [writes], store.write

    def failing(name: str, data: bytes) -> None:
        if not left[0]:
            raise StorageFailed("the disk is full")
        left[0] -= 1
        write(name, data)

    store.write = failing  # type: ignore[method-assign]
    return store


def test_a_finished_copy_is_left_alone(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    first = repack(open_set(tmp_path / "set"), open_store(tmp_path / "out"), OPTIONS)
    before = digests(tmp_path / "out")
    assert repack(open_set(tmp_path / "set"), open_store(tmp_path / "out"), OPTIONS) == first
    assert digests(tmp_path / "out") == before


def test_another_state_of_the_source_is_refused(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    repack(open_set(tmp_path / "set"), open_store(tmp_path / "out"), OPTIONS)
    with pytest.raises(BadInput, match="was begun with another set, other options"):
        repack(open_set(tmp_path / "set"), open_store(tmp_path / "out"), RepackOptions(6, "parquet"))
    commit_block(ImageSet(open_store(tmp_path / "set")), 2, [data_row(9)], attempt=1)
    with pytest.raises(BadInput, match="before the set changed"):
        repack(open_set(tmp_path / "set"), open_store(tmp_path / "out"), OPTIONS)
    remove(tmp_path / "set", [(0, 0)])
    with pytest.raises(BadInput, match="before the set changed"):
        repack(open_set(tmp_path / "set"), open_store(tmp_path / "out"), OPTIONS)


def test_what_cannot_be_repacked(tmp_path: Path) -> None:
    make_set(tmp_path / "part", blocks=2, spec=spec_of(blocks=3).to_json())
    with pytest.raises(BadInput, match=r"1 of 3 blocks of .* are not drawn yet"):
        repack(open_set(tmp_path / "part"), open_store(tmp_path / "out"), OPTIONS)
    make_set(tmp_path / "set")
    with pytest.raises(BadInput, match="holds a set that was drawn there"):
        repack(open_set(tmp_path / "set"), open_store(tmp_path / "set"), OPTIONS)


def test_a_copy_is_copied_again(tmp_path: Path) -> None:
    made = make_set(tmp_path / "set")
    repack(open_set(tmp_path / "set"), open_store(tmp_path / "tar"), RepackOptions(3, "webdataset"))
    repack(open_set(tmp_path / "tar"), open_store(tmp_path / "out"), OPTIONS)
    repack(open_set(tmp_path / "set"), open_store(tmp_path / "direct"), OPTIONS)
    assert [row for _, _, row in SetReader(open_store(tmp_path / "out")).rows()] == made
    names = [
        {name for name in digests(tmp_path / place) if name.startswith("data")}
        for place in ("out", "direct")
    ]
    assert names[0] == names[1]
