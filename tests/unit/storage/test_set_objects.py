"""Objects of a set: the same bytes from the same rows, read as they were written, damage named."""

import io
import tarfile
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.set_objects import (
    LAYOUTS,
    data_object,
    manifest_object,
    manifest_rows,
    read_data_object,
    read_manifest,
)
from sar_eval.storage.set_rows import DataRow, ManifestRow, Value
from tests.small_sets import MEASURES, METADATA, data_row

ROWS = [data_row(row, index) for row in range(3) for index in (0, 2)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keep", ["pixels", "tokens", "both"])
def test_rows_come_back(layout: str, keep: str) -> None:
    rows = [data_row(row, index, keep=keep) for row in range(3) for index in (0, 2)]
    data, suffix = data_object(rows, layout, METADATA, MEASURES)
    assert suffix == LAYOUTS[layout]
    assert list(read_data_object(data, suffix)) == rows
    assert list(read_data_object(io.BytesIO(data), suffix)) == rows


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_rows_give_the_same_bytes(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data_object(ROWS, layout, METADATA, MEASURES)
    monkeypatch.setattr("time.time", lambda: 4e9)
    reversed_scores = [replace(row, scores=dict(reversed(row.scores.items()))) for row in ROWS]
    assert data_object(reversed_scores, layout, METADATA, MEASURES) == first
    assert data_object(ROWS[:-1], layout, METADATA, MEASURES) != first


def test_a_tar_has_ascending_names_and_nothing_of_its_making() -> None:
    data, _ = data_object(ROWS, "webdataset", METADATA)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert names[:4] == [f"000000000000-0000.{s}" for s in ("json", "png", "tokens.npy", "txt")]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("codebook", "code", "width"), [(64, 63, 16), (65536, 5, 16), (65537, 5, 32)])
def test_codes_are_as_wide_as_the_codebook_needs(layout: str, codebook: int, code: int, width: int) -> None:
    row = replace(data_row(0, keep="tokens"), tokens=(code,) * 4)
    data, suffix = data_object([row], layout, {"codebook_size": str(codebook)})
    if suffix == ".tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            stored = tar.extractfile("000000000000-0000.tokens.npy")
            assert stored
            assert f"'<u{width // 8}'".encode() in stored.read()
    else:
        assert str(pq.read_schema(io.BytesIO(data)).field("tokens").type.value_type) == f"uint{width}"
    assert next(read_data_object(data, suffix)).tokens == (code,) * 4


def test_codes_beyond_the_named_codebook_are_not_cut_off() -> None:
    row = replace(data_row(0, keep="tokens"), tokens=(70_000, 1))
    assert (
        next(read_data_object(*data_object([row], "parquet", {"codebook_size": "64"}))).tokens == row.tokens
    )


def test_objects_of_a_set_have_one_schema() -> None:
    """Also if no row of one has a value of some measure."""
    schemas = [
        pq.read_schema(io.BytesIO(data_object(rows, "parquet", METADATA, MEASURES)[0]))
        for rows in (ROWS, [replace(data_row(1), scores={})])
    ]
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert {"shapes", "hps"} < set(schemas[0].names)


def test_a_measure_with_the_name_of_a_column() -> None:
    row = replace(data_row(0), scores={"caption": 0.5, "clip:hessel": 1.5})
    for layout in LAYOUTS:
        data = data_object([row], layout, METADATA, ["caption", "clip:hessel"])
        assert list(read_data_object(*data)) == [row]


def test_rows_out_of_order_are_a_fault() -> None:
    with pytest.raises(ValueError, match="order of row and index"):
        data_object(ROWS[::-1], "parquet", METADATA)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped"])
def test_damage_is_named(layout: str, damage: str) -> None:
    data, suffix = data_object(ROWS, layout, METADATA)
    middle = 900 if layout == "webdataset" else len(data) // 2
    damaged = {
        "cut": data[: len(data) // 2],
        "text": b"no such object" * 100,
        "empty": b"",
        "flipped": data[:middle] + bytes(400) + data[middle + 400 :],
    }[damage]
    with pytest.raises(BadInput, match="bucket/set, data/part-7"):
        list(read_data_object(damaged, suffix, "bucket/set, data/part-7"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("../../etc/passwd", b"", "is no file of a set"),
        ("000000000000-0000.json", b"{", "broken JSON"),
        ("000000000000-0000.json", b'{"row": 1}', "has no .txt"),
        ("000000000000-0000.txt", b"x", "has no .json"),
    ],
)
def test_foreign_tars_are_refused(name: str, content: bytes, message: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        if content == b"{":
            tar.addfile(tarfile.TarInfo("000000000000-0000.txt"), io.BytesIO())
    with pytest.raises(BadInput, match=message):
        list(read_data_object(file.getvalue(), ".tar"))


def test_pickles_in_a_tar_are_not_loaded() -> None:
    file = io.BytesIO()
    content = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117)
        + b"\ncos\nsystem\n(S'false'\ntR."
    )
    with tarfile.open(fileobj=file, mode="w") as tar:
        for suffix, data in (
            ("json", b'{"row":0,"index":0,"id":"a","seed":1}'),
            ("tokens.npy", content),
            ("txt", b""),
        ):
            member = tarfile.TarInfo(f"000000000000-0000.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(BadInput, match="Object arrays cannot be loaded"):
        list(read_data_object(file.getvalue(), ".tar"))


MANIFEST = [
    ManifestRow(
        0,
        0,
        "a",
        2**62,
        "kept",
        "",
        {"hps": Value(0.3), "shapes": Value(1.0, True)},
        bytes(16),
        2**64 - 1,
        0,
    ),
    ManifestRow(0, 1, "a", 5, "filtered", "hps > 0.2", {"hps": Value(0.1)}, b"1" * 16),
    ManifestRow(1, 0, "b", 6, "unjudged", "hps: no weights", {"hps": Value(error="no weights")}),
    ManifestRow(1, 1, "b", 7, "failed", "out of memory"),
    ManifestRow(2, 0, "c", 8, "duplicate", "0/0", {}, b"2" * 16, 7, None, b"\x00<" * 4),
]


def test_a_manifest_comes_back() -> None:
    data = manifest_object(MANIFEST, MEASURES)
    assert data == manifest_object(MANIFEST, MEASURES)
    assert list(manifest_rows(read_manifest(data))) == MANIFEST
    assert read_manifest(data, ["phash"])["phash"].to_pylist() == [2**64 - 1, None, None, None, 7]
    assert read_manifest(data, ["hps.error"]).num_columns == 1


def test_manifests_of_a_set_have_one_schema() -> None:
    schemas = [
        pq.read_schema(io.BytesIO(manifest_object(rows, MEASURES)))
        for rows in (MANIFEST, MANIFEST[3:4], [])
    ]
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert schemas[0].equals(schemas[2], check_metadata=True)


def test_errors_of_any_characters_are_stored() -> None:
    """Those of a file whose name is not UTF-8, for example."""
    row = ManifestRow(1, 0, "p1", 7, "failed", "no \udc80.png", {"hps": Value(error="at \ud800")})
    (found,) = manifest_rows(read_manifest(manifest_object([row], MEASURES)))
    assert (found.why, found.values["hps"].error) == ("no \\udc80.png", "at \\ud800")


def test_a_manifest_of_another_kind() -> None:
    data = manifest_object(MANIFEST, ())
    with pytest.raises(BadInput, match=r"m\.parquet has no column hps\.score"):
        read_manifest(data, ["hps.score"], "m.parquet")
    with pytest.raises(BadInput, match="cannot be read"):
        read_manifest(data[:-9])
    table = read_manifest(manifest_object([replace(MANIFEST[0], fate="lost")], ()))
    with pytest.raises(BadInput, match="the fate of 0/0 is 'lost'"):
        list(manifest_rows(table))


def test_a_row_without_tokens_among_others_stays_without() -> None:
    rows = [data_row(0), replace(data_row(1), tokens=None), replace(data_row(2), image=None)]
    read: list[DataRow] = list(read_data_object(*data_object(rows, "parquet", METADATA)))
    assert read == rows
