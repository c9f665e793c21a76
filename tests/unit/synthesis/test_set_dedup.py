"""`synth dedup` over a whole set: what goes, what its readers then see, and what it refuses."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sar_eval.cli import app
from sar_eval.errors import BadInput
from sar_eval.storage.image_set import ImageSet, object_name
from sar_eval.storage.objects import ObjectStore, open_store
from sar_eval.storage.set_dedup import read_kept
from sar_eval.storage.set_objects import manifest_object
from sar_eval.storage.set_reader import open_set
from sar_eval.storage.set_rows import BlockRecord, ManifestRow
from sar_eval.synthesis.dedup import DedupOptions, deduplicate, restore
from sar_eval.synthesis.near_embeddings import near_embeddings
from tests.small_sets import make_set

FAR = 0xFFFF_FFFF  # a hash far from all small ones


def _draw(
    row: int, index: int = 0, fate: str = "kept", *, phash: int | None = None, pixels: bytes = b""
) -> ManifestRow:
    return ManifestRow(
        row, index, f"p{row}", 0, fate, phash=phash, pixels=pixels or bytes([row % 256] * 16)
    )


def _commit(store: ObjectStore, block: int, rows: Sequence[ManifestRow], attempt: int = 0) -> None:
    manifest = manifest_object(rows, [])
    kept = sum(row.fate == "kept" for row in rows)
    name = object_name("manifest", block, manifest, ".parquet")
    record = BlockRecord(
        block, attempt, "", name, len(rows), kept + 1, 0, len(manifest), {"kept": kept, "outranked": 1}
    )
    ImageSet(store).commit(record, b"", manifest)


def _set(*blocks: Sequence[ManifestRow], place: Path | str = "") -> ObjectStore:
    store = open_store(place or f"memory://dedup-{uuid4()}")
    ImageSet(store).begin({"format": 1})
    for block, rows in enumerate(blocks):
        _commit(store, block, rows)
    return store


def _removed(store: ObjectStore, name: str) -> list[tuple[int, int, str]]:
    return [tuple(row.values()) for row in pq.read_table(io.BytesIO(store.read(name))).to_pylist()]


def test_the_earlier_key_stays_over_all_blocks() -> None:
    """Chains end: 2/0 is near 1/0, which goes, but not near 0/1: it stays. What is not kept counts not."""
    store = _set(
        [_draw(0, 0, "outranked", phash=0b1), _draw(0, 1, phash=0b1), _draw(1, phash=0b1111)],
        [_draw(2, phash=0b111111), _draw(3, phash=FAR), _draw(3, 1, phash=FAR)],
        [_draw(4, phash=0b111), _draw(5), _draw(6, phash=FAR ^ 0b11)],
    )
    result = deduplicate(store, DedupOptions(distance=3))
    assert (result.kept, result.compared, result.without, result.removed) == (8, 7, 1, 4)
    assert _removed(store, result.name) == [(1, 0, "0/1"), (3, 1, "3/0"), (4, 0, "0/1"), (6, 0, "3/0")]
    assert deduplicate(store, DedupOptions(distance=3)) == result
    assert [info.name for info in store.list("dedup/")] == [result.name]


def test_a_new_distance_takes_the_place_of_the_old_and_restore_brings_all_back() -> None:
    store = _set([_draw(0, phash=0), _draw(1, phash=1), _draw(2, phash=7)])
    assert deduplicate(store, DedupOptions(distance=3)).removed == 2
    assert deduplicate(store, DedupOptions(distance=1)).removed == 1
    assert len(list(store.list("dedup/"))) == 1
    assert deduplicate(store, DedupOptions(distance=0)).name == ""
    assert not list(store.list("dedup/"))
    deduplicate(store, DedupOptions(distance=1))
    assert (restore(store, "phash"), restore(store, "phash")) == (1, 0)


def test_methods_add_up_and_tell_when_a_later_one_is_stale() -> None:
    """By pixels 1 goes for 0; by hash, of what is left, 3 for 2. Then 0 comes anew, and is another's."""
    same = bytes(range(16))
    first = [_draw(0, phash=FAR, pixels=same), _draw(1, phash=FAR, pixels=same)]
    store = _set(first, [_draw(2, phash=0), _draw(3, phash=1)])
    assert deduplicate(store, DedupOptions("pixels")).removed == 1
    by_hash = deduplicate(store, DedupOptions("phash"))
    assert (by_hash.kept, by_hash.compared, by_hash.without) == (4, 3, 0)
    assert _removed(store, by_hash.name) == [(3, 0, "2/0")]
    assert deduplicate(store, DedupOptions("pixels")).stale == ()
    _commit(store, 0, [_draw(0, phash=FAR, pixels=same), _draw(1, phash=FAR)], attempt=1)
    again = deduplicate(store, DedupOptions("pixels"))
    assert (again.removed, again.stale) == (0, ("phash",))
    assert _removed(store, deduplicate(store, DedupOptions("phash")).name) == [(1, 0, "0/0"), (3, 0, "2/0")]


def test_digests_that_end_in_noughts_differ() -> None:
    store = _set([_draw(0, pixels=b"a" + bytes(15)), _draw(1, pixels=b"a\0b" + bytes(13))])
    assert deduplicate(store, DedupOptions("pixels")).removed == 0


def _unit(count: int, width: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, width))
    vectors[1::3] = vectors[::3][: len(vectors[1::3])] + 0.2 * vectors[1::3]  # near the one before
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_embeddings_are_compared_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cosine that some pair has exactly as the limit, in blocks of a few rows."""
    monkeypatch.setattr("sar_eval.synthesis.near_embeddings.ROWS", 7)
    monkeypatch.setattr("sar_eval.synthesis.near_embeddings.DECIDED_AT_ONCE", 64)
    vectors = _unit(60, 24)
    exact = vectors.astype(np.float64)
    lengths = (exact**2).sum(1)
    cosines = (exact @ exact.T) / np.sqrt(lengths[:, None] * lengths)
    limit = float(cosines[0, 1])
    pairs = {tuple(p) for both in near_embeddings(vectors, limit) for p in zip(*both, strict=True)}
    near = {(a, b) for a, b in zip(*np.nonzero(np.triu(cosines, 1) > limit + 1e-12), strict=True)}
    assert len(near) > 5
    assert pairs - near == {(0, 1)}
    assert near <= pairs


def test_a_set_is_deduplicated_by_its_embeddings() -> None:
    vectors = _unit(9, 16)
    rows = [replace(_draw(row), embedding=vector.tobytes()) for row, vector in enumerate(vectors)]
    store = _set(rows[:4], rows[4:])
    result = deduplicate(store, DedupOptions("embedding", similarity=0.9))
    assert _removed(store, result.name) == [(1, 0, "0/0"), (4, 0, "3/0"), (7, 0, "6/0")]


@pytest.mark.parametrize(
    ("rows", "by", "words"),
    [
        ([_draw(0)], "phash", "no perceptual hashes"),
        ([_draw(0)], "embedding", "--embed clip"),
        ([_draw(1, phash=1), _draw(0, phash=2)], "phash", "not in order"),
        ([_draw(-1, phash=1)], "phash", "row number"),
        ([_draw(0, 1 << 20, phash=1)], "phash", "index"),
        ([_draw(0, pixels=b"short")], "pixels", "several sizes"),
        ([replace(_draw(0), embedding=b"odd")], "embedding", "odd number"),
        ([replace(_draw(0), embedding=bytes(8))], "embedding", "not of length 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(rows: list[ManifestRow], by: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        deduplicate(_set(rows), DedupOptions(by))


def test_a_manifest_that_is_not_its_records_is_refused() -> None:
    store = _set([_draw(0, phash=0)])
    (name,) = [info.name for info in store.list("manifest/")]
    store.write(name, manifest_object([_draw(0, phash=0), _draw(1, phash=1)], []))
    with pytest.raises(BadInput, match=f"{name} has 2 kept draws, its record 1"):
        read_kept(store, "phash", lambda done, of: None)
    store.write(name, b"PAR1")
    with pytest.raises(BadInput, match=name):
        read_kept(store, "phash", lambda done, of: None)


@pytest.mark.parametrize(("options", "words"), [({"by": "sound"}, "by"), ({"distance": 13}, "<= 12")])
def test_options_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        DedupOptions(**options)


def test_the_command_removes_and_restores(tmp_path: Path) -> None:
    """The rows of `make_set` have hashes 0 to 3 and 8 to 11."""
    made = make_set(tmp_path)
    run = CliRunner().invoke(app, ["synth", "dedup", str(tmp_path), "--distance", "1"])
    assert "4 of 8 kept pictures repeat earlier ones" in run.output
    left = [row.row for _, _, row in open_set(tmp_path).rows()]
    assert left == [0, 3, 9, 10]
    run = CliRunner().invoke(app, ["synth", "dedup", str(tmp_path), "--restore"])
    assert "what phash removed is back" in run.output
    assert len(list(open_set(tmp_path).rows())) == len(made)
