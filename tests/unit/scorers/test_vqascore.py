"""The scorer `vqascore`: options, its tokenizer's special tokens, damaged files, odd pictures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks.clip_flant5.pixels import Preprocessing
from sar_eval.networks.clip_flant5.tokenizer import T5Tokenizer
from sar_eval.scorers.vqascore import VqaScore
from sar_eval.scoring import ScorerSet
from tests.parity_data import needs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(parity: Path) -> Path:
    return needs(parity / "vqascore" / "cases.json").parent


def picture(width: int, height: int) -> Picture:
    return Picture.from_pixels(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def test_a_picture_lies_in_the_middle_of_a_square_of_the_mean_colour() -> None:
    square = np.asarray(Preprocessing().to_square(Image.new("RGB", (5, 2), "white")))
    assert square.shape == (5, 5, 3)
    assert (square[1:3] == 255).all()
    assert (square[[0, 3, 4]] == (122, 116, 104)).all()
    same = Image.new("RGB", (4, 4), "white")
    assert Preprocessing().to_square(same) is same


def test_failures_of_one_picture_or_prompt_are_its_own(folder: Path) -> None:
    pictures = [picture(8, 8), picture(1, 20_000), picture(8, 8), picture(8, 8), picture(1, 1)]
    prompts = ["a cat", "a cat", "an <image> of a cat", "cat " * 300, "a\x00b\x1b[31m"]
    with VqaScore(weights=str(folder)) as scorer:
        good, narrow, marked, long, control = scorer.score(pictures, prompts)
        assert list(scorer.score([], [])) == []
    assert "vqascore pads to a square, of at most 16,384" in narrow.error
    assert marked.error == "the prompt contains <image>, which stands for the picture"
    for score in (good, long, control):
        assert 0 < score.value < 1
    with ScorerSet(["vqascore"], options={"vqascore": {"weights": str(folder)}}) as scorers:
        [empty] = scorers.score([picture(8, 8)], [" "])
    assert empty.errors == {"vqascore": "the picture has no prompt"}


@pytest.mark.slow
def test_a_prompt_of_ten_thousand_characters_changes_no_other_score(folder: Path) -> None:
    with VqaScore(weights=str(folder)) as scorer:
        short, long = scorer.score([picture(8, 8)] * 2, ["a cat", "cat " * 2500])
        [alone] = scorer.score([picture(8, 8)], ["a cat"])
    assert short.value == pytest.approx(alone.value, abs=1e-6)
    assert 0 < long.value < 1


def test_options_and_files_are_checked_before_anything_is_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="model"):
        VqaScore(weights=str(folder), model="ORG/NAME")
    with pytest.raises(BadInput, match=r"question must have \{prompt\} in it"):
        VqaScore(weights=str(folder), question="Is it so?")
    with pytest.raises(BadInput, match="tower 3 of scorer 'vqascore' must be text"):
        VqaScore(weights=str(folder), tower=3)
    with pytest.raises(BadInput, match="sar-eval fetch scorers vqascore"):
        VqaScore(weights=str(tmp_path), tower=str(folder / "clip"), tokenizer=str(folder / "tokenizer"))


def test_the_version_has_the_question_and_the_files(folder: Path, tmp_path: Path) -> None:
    usual = VqaScore(weights=str(folder)).version
    assert usual != VqaScore(weights=str(folder), question="{prompt}?").version
    shutil.copytree(folder, tmp_path / "copy")
    assert VqaScore(weights=str(tmp_path / "copy")).version == usual
    config = tmp_path / "copy" / "clip" / "preprocessor_config.json"
    config.write_text(config.read_text() + "\n")
    assert VqaScore(weights=str(tmp_path / "copy")).version != usual


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"d_ff": config["d_ff"] // 2}))
    with (
        pytest.raises(BadInput, match=r"does not fit CLIP-FlanT5: .*of another shape"),
        VqaScore(weights=str(copy)),
    ):
        pass
    (copy / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(BadInput, match="no configuration of CLIP-FlanT5"), VqaScore(weights=str(copy)):
        pass


def test_a_file_that_holds_more_than_tensors_is_refused(folder: Path, tmp_path: Path) -> None:
    import torch

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    torch.save({"shared.weight": torch.zeros(1), "note": Path("x")}, copy / "pytorch_model.bin")
    with pytest.raises(
        BadInput, match=r"no torch file of tensors alone: it also holds an object of pathlib"
    ):
        VqaScore(weights=str(copy))


def test_special_tokens_that_a_prompt_spells_out_are_tokens(folder: Path, tmp_path: Path) -> None:
    """As in transformers 4's slow tokenizer: the extra ids swallow the blanks beside them."""
    tokenizer = T5Tokenizer(folder / "tokenizer")
    red, cat = (tokenizer.encode(text)[:-1] for text in ("red", "cat"))
    assert tokenizer.encode("red</s>") == [*red, 1]
    assert tokenizer.encode("red</s>cat") == [*red, 1, *cat, 1]
    assert tokenizer.encode("red <pad> cat")[len(red)] == 0
    last = len(tokenizer) - 1
    assert tokenizer.encode("red <extra_id_0>  cat") == [*red, last, *cat, 1]
    assert tokenizer.encode("<extra_id_99>") == [last - 99, 1]
    assert last - 100 not in tokenizer.encode("<extra_id_100>")
    assert tokenizer.encode("") == [1]
    with pytest.raises(BadInput, match=r"no .*spiece.model"):
        T5Tokenizer(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"not a model")
    with pytest.raises(BadInput, match="is no SentencePiece model"):
        T5Tokenizer(tmp_path)


@pytest.mark.slow
def test_the_qwen_form_is_the_first_token_of_a_chat_model(parity: Path) -> None:
    """P("Yes") of a tiny Qwen3-VL, which only the full reference data has."""
    from sar_eval.answerers.transformers import TransformersAnswerer
    from sar_eval.answers import Asked

    model = str(needs(parity / "folds/geneval2/tiny-qwen3-vl/model.safetensors").parent)
    image, text = picture(96, 64), 'Does this figure show "a cat"? Please answer Yes or No.'
    with VqaScore("qwen", model=model) as scorer:
        [score] = scorer.score([image], ["a cat"])
    with TransformersAnswerer(model=model, prompt="{question}", max_new_tokens=1) as answerer:
        [[answer]] = answerer.ask([(np.asarray(image.rgb), [Asked(text, ("Yes",))])])
    assert score.value == pytest.approx(answer.listed.mass, rel=1e-6)
    assert 0 < score.value < 1
    with pytest.raises(BadInput, match="weights"):
        VqaScore("qwen", weights="folder")
