"""`train` takes a set in place of a folder of shards: tokens, pictures, a bucket's address, and a copy."""

from pathlib import Path

import pytest
from sar_eval.train.decoder import DecoderOptions, TokenDataset, check_tokens
from sar_eval.train.pretrain import pretrain
from sar_eval.train.sft import sft

from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.demo import build_text_tokenizer
from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_reader import open_set
from sar_eval.storage.token_shards import TokenShards
from sar_eval.synthesis.repack import RepackOptions, repack
from sar_eval.train.tokenizer import TokenizerOptions, export
from tests import small_sets
from tests.small_sets import make_set
from tests.token_folders import tokenize

OPTIONS = DecoderOptions(steps=2, batch_size=2, learning_rate=0.01, warmup=0, caption_dropout=0.0)


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
    check_tokens([uri], visual)
    text = build_text_tokenizer(["A", "picture", "of", "a", "ring"])
    dataset = TokenDataset([uri], text, OPTIONS)
    assert (dataset.tokens - len(text)).tolist() == [list(row.tokens or ()) for row in made]
    assert dataset.captions == text([row.text for row in made], add_special_tokens=False)["input_ids"]


def test_codes_of_another_encoder_are_refused(
    visual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(small_sets.METADATA, "encoder", "f" * 16)
    make_set(tmp_path / "set")
    with pytest.raises(BadInput, match="made with encoder ffff"):
        check_tokens([tmp_path / "set"], visual)


def test_pictures_of_a_set_become_tokens(visual: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", keep="pixels", side=32)
    assert tokenize([tmp_path / "set"], visual, tmp_path / "shards").rows == 8
    assert TokenShards([tmp_path / "shards"]).rows.sum() == 8


@pytest.mark.slow
def test_training_on_a_set_and_on_its_copy_is_the_same(visual: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", layout="webdataset", keep="tokens")
    repack(open_set(tmp_path / "set"), open_store(tmp_path / "copy"), RepackOptions(3, "parquet"))
    pretrain([tmp_path / "set"], visual, tmp_path / "start", OPTIONS)
    weights = []
    for name in ("set", "copy"):
        sft(tmp_path / "start", [str(tmp_path / name)], visual, tmp_path / f"from-{name}", OPTIONS)
        weights.append((tmp_path / f"from-{name}" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != (tmp_path / "start" / "model.safetensors").read_bytes()
