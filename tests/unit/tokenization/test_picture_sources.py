"""Every kind of source: what is read, with which captions and keys, and what is rejected and why."""

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput
from sar_eval.storage.token_folder import Rejected
from sar_eval.tokenization.captions import usable_captions
from sar_eval.tokenization.options import TokenizeOptions
from sar_eval.tokenization.places import blocks_of, open_place, open_sources, parse_dataset, pinned
from sar_eval.tokenization.reasons import Refused
from sar_eval.tokenization.sources.source import SourcePicture
from tests.small_sets import make_set, png


def found(place: Path | str, **options: Any) -> dict[str, Any]:
    """Captions by key, or the reason of a rejection."""
    source = open_place(0, "data", str(place), TokenizeOptions(**options), [])
    pictures = list(source.read(list(source.units())))
    assert len({picture.key for picture in pictures}) == len(pictures)
    return {p.key: list(p.captions) if isinstance(p, SourcePicture) else p.reason for p in pictures}


def write(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_folder_with_captions_beside_pictures(tmp_path: Path) -> None:
    files = {"a b.png": png(0), "a b.txt": "\ufeffa ring", "below/ü.png": png(1), "below/ü.txt": b"\xff"}
    files |= {"none.png": png(2), ".hidden.png": png(3), "__MACOSX/a.png": png(3), "readme.md": "x"}
    write(tmp_path, files)
    assert found(tmp_path) == {
        "data/a b.png": ["a ring"],
        "data/below/ü.png": "no_caption",
        "data/none.png": [],
    }
    with pytest.raises(BadInput, match="no table of captions"):
        found(tmp_path, caption_columns=("caption",))


def test_captions_of_any_length_are_not_read(tmp_path: Path) -> None:
    files = {"a.png": png(0), "a.txt": "x" * 4_000_001, "b.png": png(1), "b.txt": "y" * 4_000_000}
    write(tmp_path / "in", files)
    assert {key: len(texts) for key, texts in found(tmp_path / "in").items()} == {
        "data/a.png": len("no_caption"),
        "data/b.png": 1,
    }
    texts = {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
    texts |= {"c.png": png(2), "c.json": b'"' + b"x" * 4_000_001, "c.txt": b"z"}
    whole = found(tar(tmp_path / "a.tar", texts))
    assert (whole["data/a.tar/a"], whole["data/a.tar/c"]) == ("no_caption", ["z"])
    with pytest.raises(Refused, match="caption_length"):
        usable_captions(whole["data/a.tar/b"], TokenizeOptions().caption_length)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.tar"])
def test_a_caption_column_that_nothing_has_is_refused(tmp_path: Path, name: str) -> None:
    write(
        tmp_path,
        {"a.csv": "file_name,caption\n1.png,x\n", "a.json": '[{"file_name": "1.png", "caption": "x"}]'},
    )
    tar(
        tmp_path / "a.tar",
        {"1.png": png(0), "1.json": b"{", "2.png": png(0), "2.json": b'{"caption": "x"}'},
    )
    assert found(tmp_path / name, caption_columns=("caption",))
    with pytest.raises(
        BadInput, match=rf"{name}: nothing has the --caption-column 'capton'; it has .*'caption'"
    ):
        found(tmp_path / name, caption_columns=("caption", "capton"))


@pytest.mark.parametrize("address", ["{}", "memory:/{}"])
def test_messages_name_the_table_itself(tmp_path: Path, address: str) -> None:
    place, store = address.format(tmp_path), fsspec.filesystem("memory" if "memory" in address else "file")
    notes = list[str]()
    store.pipe_file(f"{tmp_path}/1.png", png(0))
    store.pipe_file(f"{tmp_path}/captions.csv", b"file_name;caption\n1.png;a ring\n")
    list(open_place(0, "data", place, TokenizeOptions(), notes).units())
    assert notes == [f"{place}/captions.csv: cells are separated by semicolons"]
    store.pipe_file(f"{tmp_path}/captions.csv", b"file_name;caption\n1.png;a;ring\n")
    with pytest.raises(BadInput) as error:
        found(place)
    assert str(error.value).startswith(f"{place}/captions.csv:2: ")


def test_options_that_no_place_has_use_for(tmp_path: Path) -> None:
    make_set(tmp_path / "set", keep="both")
    for options, word in (
        ({"caption_columns": ("caption",)}, "the captions of a set are its own"),
        ({"image_column": "jpg"}, "--image-column jpg: no place has Parquet"),
    ):
        with pytest.raises(BadInput, match=word):
            open_sources([str(tmp_path / "set")], TokenizeOptions(**options), [])  # type: ignore[arg-type]


def test_readers_go_to_other_processes_without_the_listing(tmp_path: Path) -> None:
    make_set(tmp_path / "set", keep="both")
    write(tmp_path / "f", {f"{n}.png": png(n) for n in range(200)})
    parquet(tmp_path / "p" / "a.parquet", [{"image": png(0), "text": "x"}])
    tar(tmp_path / "a.tar", {"1.png": png(0)})
    places = [str(tmp_path / name) for name in ("set", "f", "p", "a.tar")]
    for source in open_sources(places, TokenizeOptions(), []):
        units = list(source.units())
        sent = pickle.dumps(source.without_listing())
        assert len(sent) < 2000
        assert list(pickle.loads(sent).read(units)) == list(source.read(units))


def test_pictures_of_other_formats_are_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": png(0), "b.gif": b"GIF89a", "c.JFIF": b"x", "notes.md": "x"})
    unread = {"data/b.gif": "unreadable", "data/c.JFIF": "unreadable"}
    assert found(tmp_path) == {"data/a.png": [], **unread}
    write(tmp_path, {"metadata.csv": "file_name,text\na.png,one\nb.gif,two\n"})
    assert found(tmp_path) == {
        "data/a.png": ["one"],
        "data/b.gif": "unreadable",
        "data/c.JFIF": "unreadable",
    }


def test_a_single_picture(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": png(0), "a.txt": "a ring", "b.png": png(1), "c.gif": b"GIF89a"})
    assert found(tmp_path / "a.png") == {"data/a.png": ["a ring"]}
    with pytest.raises(BadInput, match="nothing to tokenize"):
        found(tmp_path / "c.gif")
    with pytest.raises(BadInput, match=r"c\.gif is no picture"):
        found(tmp_path / "c.gif", format="pictures")
    write(tmp_path, {"metadata.csv": "file_name,text\na.png,one\n"})
    assert found(tmp_path / "a.png") == {"data/a.png": ["one"]}
    assert found(tmp_path / "b.png") == {"data/b.png": "no_caption"}


def test_a_folder_in_a_bucket(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file(f"{tmp_path}/data/a picture.png", png(0))
    store.pipe_file(f"{tmp_path}/data/a picture.txt", b"a ring")
    assert found(f"memory:/{tmp_path}/data") == {"data/a picture.png": ["a ring"]}


def test_a_folder_whose_links_lead_back(tmp_path: Path) -> None:
    write(tmp_path / "real", {"a.png": png(0), "a.txt": "a ring"})
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "real")
    assert found(tmp_path / "data") == {"data/linked/a.png": ["a ring"]}


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.csv"])
def test_a_table_of_captions(tmp_path: Path, name: str) -> None:
    rows = [("in/a.png", "one", "eins"), ("b.png", "two", ""), ("gone.png", "three", "drei")]
    rows += [("../../etc/passwd.png", "four", ""), ("in/a.png", "again", "")]
    if name.endswith("csv"):
        text = "file_name,text,other\n" + "".join(f"{','.join(row)}\n" for row in rows)
    else:
        names = ("file_name", "text", "other")
        text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    write(tmp_path, {name: text, "in/a.png": png(0), "b.png": png(1), "unlisted.png": png(2)})
    listed = {"data/in/a.png": ["one", "again"], "data/b.png": ["two"], "data/gone.png": "missing"}
    listed |= {"data/../../etc/passwd.png": "missing"}
    assert found(tmp_path) == listed | {"data/unlisted.png": "no_caption"}
    assert found(tmp_path / name) == listed, "a table that is named says which pictures are wanted"
    both = found(tmp_path / name, caption_columns=("text", "other"))
    assert [text for text in both["data/in/a.png"] if text] == ["one", "eins", "again"]


def parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def test_parquet_with_captions_by_name(tmp_path: Path) -> None:
    image = {"bytes": png(0), "path": "a.png"}
    rows = [
        {"image": image, "caption": "a", "long": ["b", "c"]},
        {"image": {"bytes": None, "path": "b.png"}, "caption": "x", "long": None},
        {"image": image, "caption": None, "long": None},
    ]
    parquet(tmp_path / "data" / "train.parquet", rows, row_group_size=2)
    key = "data/train.parquet"
    assert found(tmp_path / "data") == {f"{key}:0": ["a"], f"{key}:1": "no_picture", f"{key}:2": [None]}
    both = found(tmp_path / "data", caption_columns=("caption", "long"))
    assert both[f"{key}:0"] == ["a", ["b", "c"]]
    for options, word in (
        ({"caption_columns": ("text",)}, "no column 'text'; its columns are image, caption, long"),
        ({"image_column": "caption"}, "'caption' holds string, not encoded pictures"),
        ({"caption_columns": ("image",)}, "not texts"),
    ):
        with pytest.raises(BadInput, match=word):
            found(tmp_path / "data", **options)


def test_damaged_rows_of_parquet_are_counted(tmp_path: Path) -> None:
    rows = [{"image": png(n), "text": f"number {n}"} for n in range(40)]
    path = parquet(tmp_path / "a.parquet", rows, row_group_size=10, compression="zstd")
    footer = pq.ParquetFile(path).metadata
    data, at = bytearray(path.read_bytes()), footer.row_group(1).column(0).data_page_offset
    data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    source = open_place(0, "data", str(path), TokenizeOptions(), [])
    pictures = list(source.read(list(source.units())))
    [lost] = [picture for picture in pictures if isinstance(picture, Rejected)]
    assert (lost.number, lost.reason, lost.key) == (10, "unreadable", "data/a.parquet:10")
    assert len(pictures) == 31
    path.write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(BadInput, match="not a readable Parquet file"):
        list(open_place(0, "data", str(path), TokenizeOptions(), []).units())


def test_webdataset_tars(tmp_path: Path) -> None:
    data = {"x/1.jpg": png(0), "x/1.txt": b"a ring", "x/1.json": b'{"caption": "other"}'}
    data |= {"2.png": png(1), "2.json": b'{"caption": "a star", "long": ["b"]}'}
    data |= {"3.cls": b"7", "4.png": png(2), "5.webp": png(3), "5.json": b"{"}
    tar(tmp_path / "a.tar", data)
    key = "data/a.tar"
    expected = {f"{key}/x/1": ["a ring"], f"{key}/2": ["a star", None, None, None]}
    expected |= {f"{key}/3": "no_picture", f"{key}/4": [None] * 4, f"{key}/5": "no_caption"}
    assert found(tmp_path) == expected
    assert found(tmp_path / "a.tar", caption_columns=("txt", "long"))[f"{key}/2"] == [None, ["b"]]


def test_a_tar_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {f"{n}.{end}": png(n) for n in range(4) for end in ("png", "jpg")})
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        third, end = archive.getmembers()[4].offset, archive.offset
    damaged = {
        "within a member": (whole[: third - 100], 2),
        "between members": (whole[:third], 2),
        "within a header": (whole[: third + 100], 2),
        "after the last member": (whole[:end], 4),
        "a broken header": (whole[:third] + bytes(40) + whole[third + 40 :], 2),
        "zeros for a header": (whole[:third] + bytes(512) + whole[third + 512 :], 3),
        "two archives": (whole + whole, 5),
        "nothing": (b"", 1),
        "no tar": (b"x" * 2000, 1),
    }
    for what, (data, most) in damaged.items():
        path.write_bytes(data)
        pictures = found(path)
        assert pictures["data/a.tar"] == "unreadable", what
        assert len(pictures) <= most, what
    path.write_bytes(whole[: end + 512])  # all that an end needs
    assert len(found(path)) == 4


def test_members_that_are_not_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar(tmp_path / "a.tar", {"1.png": png(0), "1.txt": b"x", "2.png": png(1, 64)})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("3.png")
        link.type, link.linkname = tarfile.SYMTYPE, "1.png"
        archive.addfile(link)
    monkeypatch.setattr("sar_eval.tokenization.sources.webdataset.LARGEST", len(png(0)))
    key = "data/a.tar"
    assert found(path) == {f"{key}/1": ["x"], f"{key}/2": "unreadable", f"{key}/3": "unreadable"}


def test_sets_give_the_text_that_was_asked(tmp_path: Path) -> None:
    made = make_set(tmp_path / "set", keep="both")
    pictures = found(tmp_path / "set")
    assert pictures == {f"data/{row.row}/{row.index}": [row.text] for row in made}
    make_set(tmp_path / "tokens", keep="tokens")
    assert set(found(tmp_path / "tokens").values()) == {"no_picture"}


def test_blocks_are_cut_by_rows_and_tars_stand_alone(tmp_path: Path) -> None:
    parquet(tmp_path / "p" / "a.parquet", [{"image": png(0), "text": "x"}] * 10, row_group_size=3)
    for name in ("b.tar", "c.tar"):
        tar(tmp_path / name, {"1.png": png(0)})
    write(tmp_path / "f", {f"{n}.png": png(n) for n in range(5)})
    places = [str(tmp_path / name) for name in ("p", "b.tar", "c.tar", "f")]
    blocks = list(blocks_of(open_sources(places, TokenizeOptions(), []), 4))
    assert [[unit.rows for unit in block] for block in blocks] == [
        *([3], [3], [3, 1]),
        *([0], [0]),
        *([1] * 4, [1]),
    ]


def test_places_with_nothing_or_too_much(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    mixed = write(tmp_path / "mixed", {"a.png": png(0)})
    tar(mixed / "b.tar", {})
    parquet(tmp_path / "tokens" / "shard-0.parquet", [{"tokens": [1], "caption": "x"}])
    for place, options, word in (
        ("gone", {}, "no folder"),
        ("empty", {}, "nothing to tokenize in"),
        ("mixed", {}, "1 files for pictures, 1 files for webdataset: say which with --format"),
        ("mixed", {"format": "parquet"}, "no .parquet files"),
        ("tokens", {}, "holds tokens, not pictures"),
    ):
        with pytest.raises(BadInput, match=word):
            list(open_place(0, "data", str(tmp_path / place), TokenizeOptions(**options), []).units())
    assert found(mixed, format="pictures") == {"data/a.png": []}


def test_addresses_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pinned("s3://bucket/data") == "s3://bucket/data"
    with pytest.raises(BadInput, match="hf://datasets/ORG/NAME"):
        pinned("hf://org/name")
    for text, parts in (
        ("org/n.a-me", ("org/n.a-me", None, "")),
        ("org/name@v1/in/it/", ("org/name", "v1", "/in/it")),
        ("org/name@refs/convert/parquet", ("org/name", "refs/convert/parquet", "")),
        ("org/name@refs/pr/7/default/train", ("org/name", "refs/pr/7", "/default/train")),
    ):
        assert parse_dataset(f"hf://datasets/{text}") == parts
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")
    with pytest.raises(BadInput, match="may not be asked"):
        pinned("hf://datasets/org/name")
