"""`train` takes a set in place of a folder of shards: tokens, pictures, a bucket's address, and a copy."""

from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_reader import open_set
from sar_eval.storage.token_shards import TokenShards
from sar_eval.synthesis.repack import RepackOptions, repack
from sar_eval.train.fit import check_tokens
from sar_eval.train.token_stream import TokenStream, WeightedPlace
from sar_eval.train.tokenizer import TokenizerOptions, export
from tests import small_sets
from tests.small_sets import make_set
from tests.token_folders import tokenize


@pytest.fixture
def visual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A visual tokenizer with 64 codes, with which sets of this test are made."""
    levels = (4, 4, 4)
    (tmp_path / "visual").mkdir()
    export(FsqAutoencoder(list(levels), 16).eval(), tmp_path / "visual", TokenizerOptions(levels, 16))
    digest = VisualTokenizer(tmp_path / "visual").encoder_digest
    monkeypatch.setitem(small_sets.METADATA, "encoder", digest)
    return tmp_path / "visual"


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_a_set_gives_the_sequences_that_were_drawn(visual: Path, tmp_path: Path, layout: str) -> None:
    uri = f"memory://{tmp_path}"
    made = make_set(uri, layout=layout)
    check_tokens(TokenShards([uri]).metadata, visual)
    assert rows_of(uri) == {f"{row.row}/{row.index}": (row.text, list(row.tokens or ())) for row in made}


def test_codes_of_another_encoder_are_refused(
    visual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(small_sets.METADATA, "encoder", "f" * 16)
    make_set(tmp_path / "set")
    with pytest.raises(BadInput, match="made with encoder ffff"):
        check_tokens(TokenShards([tmp_path / "set"]).metadata, visual)


def test_pictures_of_a_set_become_tokens(visual: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", keep="pixels", side=32)
    assert tokenize([tmp_path / "set"], visual, tmp_path / "shards").rows == 8
    assert TokenShards([tmp_path / "shards"]).rows.sum() == 8


def test_a_set_and_its_copy_have_the_same_rows(tmp_path: Path) -> None:
    """In an order of their own, as their row groups are others."""
    make_set(tmp_path / "set", layout="webdataset", keep="tokens")
    repack(open_set(tmp_path / "set"), open_store(tmp_path / "copy"), RepackOptions(3, "parquet"))
    assert rows_of(tmp_path / "set") == rows_of(tmp_path / "copy")


def rows_of(place: Path | str) -> dict[str, tuple[str | None, list[int]]]:
    """Captions and codes of an epoch, by key."""
    stream = TokenStream([WeightedPlace(place)], seed=0, window=9, caption_dropout=0)
    return {row.key: (row.caption, row.codes.tolist()) for row in stream.rows(0, stream.rows_an_epoch)}
