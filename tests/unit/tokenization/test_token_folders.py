"""Folders of token shards: their rows, what was left out, resuming, refusals, and the page of a sample."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.images.files import decode_image, encode_png
from sar_eval.report.token_page import write_token_page
from sar_eval.storage.objects import open_store
from sar_eval.storage.shards import TOKEN_SCHEMA, write_shards
from sar_eval.storage.token_folder import TokenFolder, TokenRow, shard_bytes
from sar_eval.storage.token_shards import TokenShards
from sar_eval.tokenization.inspect import look_at
from tests.small_sets import png
from tests.token_folders import HereRuntime, small_tokenizer, tokenize


@pytest.fixture(scope="module")
def visual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tokenizer(tmp_path_factory.mktemp("visual"))


def pictures(folder: Path, number: int = 12, side: int = 16) -> Path:
    """Squares of noise with captions, and `number` - 12 more."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(number):
        (folder / f"{n:02d}.png").write_bytes(png(n, side))
        (folder / f"{n:02d}.txt").write_text(f"number {n}")
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("shard-*")) for row in pq.read_table(path).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_rows_have_the_encoders_codes(visual: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    done = tokenize([data], visual, tmp_path / "out", block_pictures=5)
    assert (done.rows, done.tokens, done.captions, done.rejected) == (12, 48, 12, {})
    rows = rows_of(tmp_path / "out")
    assert [(row["key"], row["captions"]) for row in rows[:2]] == [
        ("data/00.png", ["number 0"]),
        ("data/01.png", ["number 1"]),
    ]
    pixels = np.stack([decode_image((data / f"{n:02d}.png").read_bytes()) for n in range(12)])
    codes = VisualTokenizer(visual).encode(torch.from_numpy(pixels)).tolist()
    assert [row["tokens"] for row in rows] == codes
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(shard["name"], shard["rows"]) for shard in manifest["shards"]] == [
        ("shard-000000.parquet", 5),
        ("shard-000001.parquet", 5),
        ("shard-000002.parquet", 2),
    ]
    assert (manifest["rows"], manifest["sizes"]) == (12, {"2x2": 12})


def test_codes_take_two_bytes_or_four() -> None:
    row = TokenRow("k", ("c",), np.array([0, 65_535]), 1, 2)
    for size, kind in ((1 << 16, "uint16"), ((1 << 16) + 1, "uint32")):
        schema = pq.read_schema(_as_file(shard_bytes([row] * 2500, {"codebook_size": str(size)})))
        assert str(schema.field("tokens").type.value_type) == kind
    parquet = pq.ParquetFile(_as_file(shard_bytes([row] * 2500, {"codebook_size": "64000"})))
    assert [parquet.metadata.row_group(n).num_rows for n in range(3)] == [1000, 1000, 500]


def _as_file(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def test_pictures_of_many_shapes_keep_their_order(visual: Path, tmp_path: Path) -> None:
    data, shapes = tmp_path / "data", [(40, 20), (20, 40), (30, 30)]
    data.mkdir()
    for n in range(20):
        noise = np.random.default_rng(n).integers(0, 256, (*shapes[n % 3], 3), np.uint8)
        (data / f"{n:02d}.png").write_bytes(encode_png(noise))
        (data / f"{n:02d}.txt").write_text(f"number {n}")
    tokenize([data], visual, tmp_path / "out", size=(32, 32), buckets=8, batch_size=4)
    rows = rows_of(tmp_path / "out")
    assert [row["captions"][0] for row in rows] == [f"number {n}" for n in range(20)]
    sizes = [(row["height"], row["width"]) for row in rows]
    assert sizes[:3] == [(5, 3), (3, 5), (4, 4)]
    assert all(len(row["tokens"]) == row["height"] * row["width"] for row in rows)


def test_nothing_is_lost_in_silence(visual: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 6)
    (data / "00.png").write_bytes(b"no picture")
    (data / "01.png").write_bytes((data / "01.png").read_bytes()[:-40])
    (data / "02.txt").unlink()
    (data / "03.png").write_bytes(png(3, 8))
    (data / "04.txt").write_text("x" * 99)
    done = tokenize([data], visual, tmp_path / "out", min_side=16, caption_length=(1, 20))
    reasons = {"caption_length": 1, "no_caption": 1, "too_small": 1, "unreadable": 2}
    assert (done.rows, done.rejected, done.faults) == (1, reasons, 3)
    lines = (tmp_path / "out" / "rejected" / "000000.jsonl").read_text().splitlines()
    named = {row["key"]: row["reason"] for row in map(json.loads, lines)}
    assert named["data/00.png"] == named["data/01.png"] == "unreadable"
    assert "data/00.png: unreadable" in done.examples[0]
    with pytest.raises(BadInput, match=r"no picture was left to train on .*3 too_small.*data/00\.png"):
        tokenize([data], visual, tmp_path / "none", min_side=1000)


def test_names_that_are_no_text_are_told(visual: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 1)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("x.\udcff"))
    done = tokenize([data, tmp_path / "a.tar"], visual, tmp_path / "out")
    assert done.rejected == {"no_picture": 1}
    assert done.examples == ("a.tar/a.tar/x: no_picture (only \\udcff)",)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_what_was_stopped_goes_on(visual: Path, tmp_path: Path, blocks: int) -> None:
    data = pictures(tmp_path / "data")
    options: dict[str, Any] = {"block_pictures": 5, "size": (8, 8), "crop": "random"}
    tokenize([data], visual, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        tokenize([data], visual, tmp_path / "out", runtime=HereRuntime(blocks), **options)
    with pytest.raises(BadInput, match="is not finished: run the same `sar-eval train tokenize`"):
        look_at(str(tmp_path / "out"), visual, 3)
    before = contents(tmp_path / "out")
    # Of a worker that was killed between a shard and its done-record: it is written again.
    (tmp_path / "out" / "shard-000002.parquet").write_bytes(b"torn")
    tokenize([data], visual, tmp_path / "out", **options)
    after = contents(tmp_path / "out")
    assert after == contents(tmp_path / "whole")
    assert all(after[name] == data for name, data in before.items())
    tokenize([data], visual, tmp_path / "out", runtime=HereRuntime(0), **options)  # nothing is left to do


def test_another_batch_size_goes_on_and_other_options_do_not(visual: Path, tmp_path: Path) -> None:
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    tokenize([data], visual, out, block_pictures=5)
    tokenize([data], visual, out, block_pictures=5, batch_size=3)
    with pytest.raises(SpecMismatch, match="begun with min_side 0, not 8"):
        tokenize([data], visual, out, block_pictures=5, min_side=8)
    with pytest.raises(SpecMismatch, match=r"begun from .*data"):
        tokenize([pictures(tmp_path / "other")], visual, out, block_pictures=5)
    with pytest.raises(SpecMismatch, match="another tokenizer"):
        tokenize([data], small_tokenizer(tmp_path / "second"), out, block_pictures=5)
    (data / "07.txt").write_text("number seven")
    with pytest.raises(SpecMismatch, match=r"changed since .*: 07\.png has another size or other captions"):
        tokenize([data], visual, out, block_pictures=5)
    (data / "07.txt").write_text("number 7")
    (data / "11.png").unlink()
    with pytest.raises(SpecMismatch, match=r"changed since .*: 11\.png is gone"):
        tokenize([data], visual, out, block_pictures=5)
    (data / "00.png").unlink()
    with pytest.raises(SpecMismatch, match=r"changed since .*: 00\.png was where 01\.png is now"):
        tokenize([data], visual, out, block_pictures=5)


def test_a_shard_that_was_lost_is_named(visual: Path, tmp_path: Path) -> None:
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    tokenize([data], visual, out, block_pictures=5)
    shard, listed = out / "shard-000001.parquet", out / "manifest.json"
    whole, manifest = shard.read_bytes(), listed.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(BadInput, match=r"shard-000001\.parquet has another size than on record"):
        TokenShards([out])
    shard.unlink()
    with pytest.raises(BadInput, match=r"shard-000001\.parquet is gone that is on record: copy it again"):
        TokenShards([str(out)])
    for _ in range(2):  # with a manifest, and without one
        with pytest.raises(BadInput, match=r"shard-000001\.parquet is gone that is on record"):
            tokenize([data], visual, out, block_pictures=5)
        listed.unlink(missing_ok=True)
    (out / "done" / "000001.json").unlink()
    tokenize([data], visual, out, block_pictures=5)
    assert (shard.read_bytes(), listed.read_bytes()) == (whole, manifest)


def test_a_manifest_of_anyone_is_no_matter(tmp_path: Path) -> None:
    write_shards([{"tokens": [1], "caption": "x"}], tmp_path / "out", TOKEN_SCHEMA)
    for text in ("[]", '{"shards": 3}', '{"format": "else", "shards": [{"name": "shard-7", "bytes": 1}]}'):
        (tmp_path / "out" / "manifest.json").write_text(text)
        assert TokenShards([tmp_path / "out"]).rows.tolist() == [1]
    (tmp_path / "out" / "manifest.json").write_text('{"format": "sar-eval-tokens/1", "shards": 3}')
    with pytest.raises(BadInput, match=r"manifest\.json.*shards"):
        TokenShards([tmp_path / "out"])


def test_a_folder_with_other_files_is_left_alone(visual: Path, tmp_path: Path) -> None:
    write_shards([{"tokens": [1], "caption": "x"}], tmp_path / "out", TOKEN_SCHEMA)
    before = contents(tmp_path / "out")
    with pytest.raises(BadInput, match=r"already has shard-00000.parquet: name an empty folder"):
        tokenize([pictures(tmp_path / "data")], visual, tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"places": []}', "places", "pinned", "tokenizer", "options", "plan", "blocks"],
)
def test_a_broken_spec_is_named(visual: Path, tmp_path: Path, text: str) -> None:
    whole = {"places": [], "pinned": [], "tokenizer": {}, "options": {}, "plan": "", "blocks": 0}
    (tmp_path / "out").mkdir()
    broken = json.dumps(whole | {text: 3.5}) if text in whole else text
    (tmp_path / "out" / "tokenization.json").write_text(broken)
    with pytest.raises(BadInput, match=r"tokenization\.json"):
        tokenize([pictures(tmp_path / "data")], visual, tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["[1]", '{"sizes": {"1x?": 2}}', '{"rejected": {"x": "y"}}', '{"sizes": 1}']
)
def test_a_broken_manifest_is_named(visual: Path, tmp_path: Path, text: str) -> None:
    tokenize([pictures(tmp_path / "data", 2)], visual, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text(text)
    with pytest.raises(BadInput, match=r"manifest\.json"):
        look_at(str(tmp_path / "out"), visual, 3)


def test_a_manifest_alone_is_no_finished_folder(visual: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(BadInput, match=r"already has manifest\.json: name an empty folder"):
        tokenize([pictures(tmp_path / "data")], visual, tmp_path / "out")


def test_of_two_drivers_at_once_the_second_leaves_the_plan_alone(visual: Path, tmp_path: Path) -> None:
    """It saw no spec, listed its pictures, and meanwhile the first one began."""
    data, out = pictures(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        tokenize([data], visual, out, runtime=HereRuntime(0), block_pictures=5)
    before = contents(out)
    folder = TokenFolder(open_store(out))
    assert folder.begin({"places": ["others"]}) == json.loads(before["tokenization.json"])
    folder.keep_plan(b"of others")
    assert contents(out) == before
    (out / "plan.parquet").unlink()  # of a driver that was killed before it had one
    tokenize([data], visual, out, block_pictures=5)
    assert (out / "plan.parquet").read_bytes() == before["plan.parquet"]


def test_a_sample_becomes_a_page(visual: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    (data / "03.txt").write_text("<script>alert(1)</script>")
    (data / "04.txt").unlink()
    tokenize([data], visual, tmp_path / "out", block_pictures=5)
    page = look_at(str(tmp_path / "out"), visual, 50, seed=1)
    assert (page.rows, len(page.pictures), page.sizes) == (11, 11, [("16x16", 11)])
    assert [picture.key for picture in look_at(str(tmp_path / "out"), visual, 3, seed=1).pictures] == [
        picture.key for picture in look_at(str(tmp_path / "out"), visual, 3, seed=1).pictures
    ]
    codes = torch.tensor(rows_of(tmp_path / "out")[0]["tokens"]).view(1, 2, 2)
    decoded = VisualTokenizer(visual).decode(codes).pixels[0].numpy()
    np.testing.assert_array_equal(decode_image(page.pictures[0].image or b""), decoded)
    write_token_page(tmp_path / "page.html", page)
    html = (tmp_path / "page.html").read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "no caption: 1" in html
    assert html.count("data:image/png;base64") == 11


def test_pages_of_shards_of_other_kinds(visual: Path, tmp_path: Path) -> None:
    metadata = {"codebook_size": "64", "encoder": VisualTokenizer(visual).encoder_digest}
    write_shards([{"tokens": [1, 2, 3, 4], "caption": "x"}], tmp_path / "old", TOKEN_SCHEMA, 1, metadata)
    [picture] = look_at(str(tmp_path / "old"), visual, 5).pictures
    assert (picture.height, picture.width, list(picture.captions)) == (2, 2, ["x"])
    for name, tokens, encoder, word in (
        ("bent", [1, 2, 3], metadata["encoder"], "rows of 3 tokens: no square picture"),
        ("high", [1, 2, 3, 64], metadata["encoder"], "has code 64, the tokenizer has 64"),
        ("else", [1, 2, 3, 4], "f" * 16, "made with encoder ffff"),
    ):
        write_shards(
            [{"tokens": tokens, "caption": "x"}], tmp_path / name, TOKEN_SCHEMA, 1, {"encoder": encoder}
        )
        with pytest.raises(BadInput, match=word):
            look_at(str(tmp_path / name), visual, 5)
    with pytest.raises(BadInput, match=r"no shard-\*\.parquet"):
        look_at(str(tmp_path), visual, 5)
