"""HPSv3 against the package hpsv3 1.0.0 on a tiny checkpoint, and what mistakes would cost."""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from sar_eval.images.picture import Picture
from sar_eval.networks.hpsv3.picture import cut_patches, grid, resize
from sar_eval.networks.hpsv3.scoring import Hpsv3
from sar_eval.networks.hpsv3.text import RequestTokenizer, format_request
from sar_eval.scorers.hpsv3 import Hpsv3Scorer
from tests.parity_data import DATA, needs
from tests.qwen_vocabulary import read_ranks, write_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
SCORE, HIDDEN, PICTURE_TOKENS, PIXELS = 5e-5, 5e-5, 2e-5, 1e-5  # tolerances of the data
VISIBLE = 2e-3  # the least that a mistake moves some score
RANKS = "SAR_EVAL_QWEN_RANKS"  # names the file of Qwen2's whole vocabulary (see tests/qwen_vocabulary.py)


class Data:
    """Our network, and the official answers for the cases whose pictures are at hand."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.hpsv3 = Hpsv3(folder / "HPSv3.safetensors", folder / "base")
        content = json.loads((folder / "cases.json").read_text())
        self.texts, self.batch = content["texts"], content["batch"]
        self.expected = load_file(folder / "expected.safetensors")
        self.numbers = [n for n, case in enumerate(content["cases"]) if (folder / case["image"]).is_file()]
        self.cases = [content["cases"][number] for number in self.numbers]
        self.scores = self.expected["scores"][self.numbers]
        self.prompts = [self.texts[case["text_id"]] for case in self.cases]
        self.images = [Image.open(folder / case["image"]) for case in self.cases]
        self.pictures = [resize(image) for image in self.images]
        pairs = zip(self.pictures, self.prompts, strict=True)
        self.requests = [self.hpsv3.request(picture, prompt) for picture, prompt in pairs]

    def each(self):
        return zip(self.numbers, self.cases, self.pictures, self.requests, strict=True)

    def means(self, pictures=None):
        pictures = pictures or self.pictures
        pairs = zip(pictures, self.prompts, strict=True)
        requests = [self.hpsv3.request(picture, prompt) for picture, prompt in pairs]
        return torch.tensor([found.mean for found in self.hpsv3.score(pictures, requests, 4)])


@pytest.fixture(scope="module")
def data(parity):
    return Data(needs(parity / "hpsv3"))


def test_texts_and_token_ids(data) -> None:
    for number, case, _, request in data.each():
        assert format_request(data.texts[case["text_id"]]) == case["formatted_text"]
        assert list(request.ids) == data.expected[f"input_ids/{number}"].tolist()
        assert (len(request.ids), request.reward) == (case["length"], case["reward_position"])


def test_resized_pictures_and_their_patches(data) -> None:
    for number, case, picture, _ in data.each():
        assert list(picture.shape[:2]) == case["resized_height_width"]
        assert hashlib.sha256(picture.tobytes()).hexdigest() == case["resized_rgb_sha256"]
        assert grid([picture]).tolist() == [case["image_grid_thw"]]
        patches = cut_patches(torch.from_numpy(picture))
        assert (patches.mean(1) - data.expected[f"pixel_row_means/{number}"]).abs().max() < PIXELS
        if (rows := data.expected.get(f"pixel_rows/{number}")) is not None:
            assert (patches[::64] - rows).abs().max() < PIXELS


def test_the_resized_pictures_as_stored(data) -> None:
    for path in (data.folder / "resized").glob("*.png"):
        (source,) = (data.folder / "images").glob(f"{path.stem}.*")
        assert np.array_equal(resize(Image.open(source)), np.asarray(Image.open(path)))


@torch.inference_mode()
def test_picture_tokens_and_hidden_states(data) -> None:
    for number, _, picture, request in data.each():
        tokens = data.hpsv3.encode([torch.from_numpy(picture)])
        if (expected := data.expected.get(f"image_embeds/{number}")) is not None:
            assert (tokens - expected).abs().max() < PICTURE_TOKENS
        hidden = data.hpsv3.hidden_at_reward(tokens, [request])[0]
        assert (hidden - data.expected["hidden_at_reward"][number]).abs().max() < HIDDEN


@pytest.mark.parametrize("pictures_at_once", [1, 5])
def test_scores_alone_and_in_batches(data, pictures_at_once) -> None:
    """The scorer reads the files as they are stored; sigma is the exponential of the raw number."""
    options = {"weights": str(data.folder), "base": str(data.folder / "base")}
    pictures = [Picture.open(data.folder / case["image"]) for case in data.cases]
    with Hpsv3Scorer(**options, pictures_at_once=pictures_at_once) as scorer:
        found = list(scorer.score(pictures, data.prompts))
    values = torch.tensor([[score.value, score.more["sigma_raw"]] for score in found], dtype=torch.float64)
    assert (values - data.scores).abs().max() < SCORE
    assert [score.more["sigma"] for score in found] == [math.exp(raw) for raw in values[:, 1].tolist()]


def test_a_padded_batch_is_the_official_one(data) -> None:
    chosen = data.batch["cases"]
    if not set(chosen) <= set(data.numbers):
        pytest.skip("the pictures of the official batch are only in the full reference data")
    places = [data.numbers.index(number) for number in chosen]
    requests = [data.requests[place] for place in places]
    ids, mask = data.hpsv3.pad(requests)
    expected_mask = data.expected["batch/attention_mask"].bool()
    assert torch.equal(mask.bool(), expected_mask)
    assert torch.equal(ids[expected_mask], data.expected["batch/input_ids"][expected_mask].long())
    found = data.hpsv3.score([data.pictures[place] for place in places], requests, len(places))
    logits = torch.tensor([[judged.mean, judged.raw_spread] for judged in found])
    assert (logits - torch.tensor(data.batch["logits"])).abs().max() < SCORE


def test_ids_of_the_real_vocabulary(data, tmp_path) -> None:
    """By default with those words of the vocabulary that occur in the committed texts."""
    real = json.loads((needs(data.folder / "real_vocabulary_ids.json")).read_text())
    words = Path(os.environ.get(RANKS) or DATA / "hpsv3" / "qwen_words.tiktoken")
    if RANKS not in os.environ and data.texts != json.loads((DATA / "hpsv3" / "texts.json").read_text()):
        pytest.skip(f"other texts than the committed ones need the whole vocabulary: set {RANKS}")
    path = tmp_path / "tokenizer.json"
    write_tokenizer(read_ranks(words), data.folder / "base" / "tokenizer.json", path)
    tokenizer = RequestTokenizer(path)
    assert tokenizer.picture_id == real["special"]["<|image_pad|>"]
    for name, ids in real["ids"].items():
        request = tokenizer.encode(data.texts[name], 1)
        assert list(request.ids) == ids, name
        assert ids[request.reward] == real["special"]["<|Reward|>"]


# --- quirks of the official code, and what mistakes would cost


def mrope_positions(request, picture_id, rows, columns):
    """Qwen2-VL's own `[3, 1, L]`: a picture's tokens by row and column, the text goes on behind."""
    first = request.ids.index(picture_id)
    after = len(request.ids) - first - rows * columns
    tokens = torch.arange(rows * columns)
    picture = torch.stack([torch.zeros_like(tokens), tokens // columns, tokens % columns]) + first
    text = torch.arange(after).expand(3, -1) + first + max(rows, columns)
    return torch.cat([torch.arange(first).expand(3, -1), picture, text], 1)[:, None]


@torch.inference_mode()
def test_positions_are_plain_and_not_mrope(data) -> None:
    """With M-RoPE our network gives what the official class gives with M-RoPE: another score."""
    differences = []
    for number, case, picture, request in data.each():
        assert data.expected[f"position_ids/{number}"].tolist() == [list(range(case["length"]))] * 3
        _, high, wide = case["image_grid_thw"]
        positions = mrope_positions(request, data.hpsv3.tokenizer.picture_id, high // 2, wide // 2)
        tokens = data.hpsv3.encode([torch.from_numpy(picture)])
        hidden = data.hpsv3.hidden_at_reward(tokens, [request], positions)
        mean = float(data.hpsv3.network.judge(hidden)[0, 0])
        assert mean == pytest.approx(case["mu_if_mrope_positions"], abs=SCORE)
        differences.append(abs(mean - case["mu"]))
    assert max(differences) > VISIBLE


def squash(image):
    return np.array(image.convert("RGB").resize((448, 448), Image.Resampling.BICUBIC))


def bilinear(image):
    height, width = resize(image).shape[:2]
    return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def rotated(image):
    return resize(ImageOps.exif_transpose(image))


@pytest.mark.slow
@pytest.mark.parametrize("change", [squash, bilinear, rotated])
def test_another_resize_gives_another_score(data, change) -> None:
    assert (data.means([change(image) for image in data.images]) - data.scores[:, 0]).abs().max() > VISIBLE


def last_token(hpsv3, monkeypatch):
    """Officially it is the token <|Reward|>, some tokens before the last."""
    encode = hpsv3.tokenizer.encode
    monkeypatch.setattr(hpsv3.tokenizer, "encode", lambda *given: encode(*given)._replace(reward=-1))


def rms_eps(hpsv3, monkeypatch):
    """The default of transformers' class; the base's configuration has 1e-6."""
    for module in hpsv3.network.language_model.modules():
        if hasattr(module, "variance_epsilon"):
            monkeypatch.setattr(module, "variance_epsilon", 1e-5)


def exact_gelu(hpsv3, monkeypatch):
    """The vision tower has QuickGELU."""
    for block in hpsv3.network.visual.blocks:
        monkeypatch.setitem(block.mlp._modules, "act", torch.nn.GELU())


def theta(hpsv3, monkeypatch):
    rotary = hpsv3.network.language_model.rotary_emb
    width = 2 * rotary.inv_freq.numel()
    frequencies = 1.0 / 1e4 ** (torch.arange(0, width, 2) / width)
    monkeypatch.setitem(rotary._buffers, "inv_freq", frequencies)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [last_token, rms_eps, exact_gelu, theta])
def test_another_network_gives_another_score(data, mistake, monkeypatch) -> None:
    mistake(data.hpsv3, monkeypatch)
    assert (data.means() - data.scores[:, 0]).abs().max() > VISIBLE


@pytest.mark.slow
def test_bfloat16_is_another_number_and_finite(data) -> None:
    """The README's deviation of the body in bfloat16 is 0.07 on these weights; the head stays float32."""
    low = Hpsv3(data.folder / "HPSv3.safetensors", data.folder / "base", dtype="bfloat16")
    assert {weight.dtype for weight in low.network.head.parameters()} == {torch.float32}
    assert low.network.language_model.norm.weight.dtype == torch.bfloat16
    found = torch.tensor([judged.mean for judged in low.score(data.pictures, data.requests, 4)])
    assert VISIBLE < (found - data.scores[:, 0]).abs().max() < 0.5
