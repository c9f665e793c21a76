"""ImageReward against image-reward 1.5 on a tiny checkpoint, and what each mistake would cost."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from sar_eval.images.picture import Picture
from sar_eval.networks.clip.transforms import openai_square
from sar_eval.networks.image_reward.scoring import ImageReward
from sar_eval.networks.image_reward.tokenizer import MAX_LENGTH
from sar_eval.scorers.imagereward import ImageRewardScorer
from tests.parity_data import needs

pytestmark = pytest.mark.usefixtures("one_thread")
SCORE, HIDDEN, PIXELS = 2e-5, 2e-5, 1e-6  # tolerances of the data
VISIBLE = 5e-4  # the least that a mistake moves some score


class Data:
    """Our network, and the official answers for the cases whose pictures are at hand."""

    def __init__(self, folder) -> None:
        self.folder = folder
        names = ("ImageReward.pt", "ImageReward.safetensors")  # the committed part has the latter
        self.weights = next(folder / name for name in names if (folder / name).is_file())
        self.vocabulary = folder / "bert-base-uncased" / "vocab.txt"
        self.reward = ImageReward(self.weights, self.vocabulary)
        content = json.loads((folder / "cases.json").read_text())
        self.texts, self.rank = content["texts"], content["rank"]
        self.expected = load_file(folder / "expected.safetensors")
        self.numbers = [n for n, case in enumerate(content["cases"]) if (folder / case["image"]).is_file()]
        self.cases = [content["cases"][number] for number in self.numbers]
        self.scores = self.expected["scores"][self.numbers]
        self.prompts = [self.texts[case["text_id"]]["text"] for case in self.cases]
        self.images = [Image.open(folder / case["image"]) for case in self.cases]

    def error(self, reward=None, images=None, crop=openai_square) -> float:
        """The greatest deviation from the official scores, as one batch."""
        reward = reward or self.reward
        pictures = [np.array(crop(image, reward.side)) for image in images or self.images]
        found = torch.tensor([score.value for score in reward.score(pictures, self.prompts)])
        return float((found - self.scores).abs().max())


@pytest.fixture(scope="module")
def data(parity):
    return Data(needs(parity / "imagereward"))


def test_the_ids_of_all_texts(data) -> None:
    for name, text in data.texts.items():
        encoded = data.reward.tokenizer.encode(text["text"])
        assert list(encoded.ids) == text["input_ids"], name
        assert encoded.length == sum(text["attention_mask"]), name


def test_pixels_and_picture_tokens(data) -> None:
    for name, expected in data.expected.items():
        kind, _, file = name.partition("/")
        if kind in {"pixels", "image_embeds"}:
            image = Image.open(data.folder / "images" / file)
            pixels = data.reward.pixels([data.reward.prepare(image)])
            found = pixels if kind == "pixels" else data.reward.network.encode_pictures(pixels)
            assert (found[0] - expected).abs().max() < {"pixels": PIXELS, "image_embeds": HIDDEN}[kind]


def test_hidden_states(data) -> None:
    pixels = data.reward.pixels([data.reward.prepare(image) for image in data.images])
    encoded = [data.reward.tokenizer.encode(prompt) for prompt in data.prompts]
    found = data.reward.first_tokens(data.reward.network.encode_pictures(pixels), encoded)
    assert (found - data.expected["cls"][data.numbers]).abs().max() < HIDDEN


def test_scores_alone_and_as_one_batch(data) -> None:
    """The scorer reads the files as they are stored."""
    pictures = [Picture.open(data.folder / case["image"]) for case in data.cases]
    with ImageRewardScorer(weights=str(data.weights)) as scorer:
        together = list(scorer.score(pictures, data.prompts))
        alone = [next(scorer.score([p], [text])) for p, text in zip(pictures, data.prompts, strict=True)]
    for found in (together, alone):
        values = torch.tensor([score.value for score in found], dtype=torch.float64)
        assert (values - data.scores).abs().max() < SCORE
        assert [score.truncated for score in found] == [case["truncated"] for case in data.cases]


def test_ranking_of_several_pictures_for_one_prompt(data) -> None:
    """The official list call."""
    pairs = list(zip(data.rank["images"], data.rank["rewards"], strict=True))
    known = [(image, value) for image, value in pairs if (data.folder / image).is_file()]
    pictures = [data.reward.prepare(Image.open(data.folder / image)) for image, _ in known]
    prompt = data.texts[data.rank["text_id"]]["text"]
    found = [score.value for score in data.reward.score(pictures, [prompt] * len(known))]
    assert found == pytest.approx([value for _, value in known], abs=SCORE)


# --- what each of the published mistakes would cost


def crop_rounded(image, side):
    """The long side rounded instead of cut, the crop's offset floored."""
    short = min(image.size)
    width, height = (side if edge == short else round(side * edge / short) for edge in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return openai_square(resized.crop((left, top, left + side, top + side)), side)


def squash(image, side):
    """The whole picture as a square."""
    return openai_square(image.resize((side, side), Image.Resampling.BICUBIC), side)


def test_the_data_are_scored_right_as_stored(data) -> None:
    assert data.error() < SCORE


@pytest.mark.parametrize(
    "change", [lambda image: image.convert("RGB"), ImageOps.exif_transpose], ids=["rgb first", "exif"]
)
def test_a_converted_or_rotated_picture_has_another_score(data, change) -> None:
    assert data.error(images=[change(image) for image in data.images]) > VISIBLE


@pytest.mark.parametrize("crop", [crop_rounded, squash])
def test_another_crop_gives_another_score(data, crop) -> None:
    assert data.error(crop=crop) > VISIBLE


@pytest.fixture
def changed(data, tmp_path):
    """Another copy of the network, to be changed, with that many heads of its text half."""

    def load(**numbers):
        for path in (data.weights, data.folder / "sizes.json"):
            shutil.copyfile(path, tmp_path / path.name)
        config = json.loads((data.folder / "med_config.json").read_text())
        (tmp_path / "med_config.json").write_text(json.dumps(config | numbers))
        return ImageReward(tmp_path / data.weights.name, data.vocabulary)

    return load


def test_other_heads_give_another_score(data, changed) -> None:
    """transformers' default is 8."""
    assert data.error(changed()) < SCORE
    assert data.error(changed(num_attention_heads=8)) > VISIBLE


def eps_of(part):
    """The default of transformers' BLIP for pictures; neither half's own."""

    def change(network, _):
        for module in getattr(network, part).modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-5

    return change


def tanh_gelu(network, _):
    gelu = torch.nn.GELU(approximate="tanh")
    for layer in network.text.encoder.layer:
        layer.intermediate.intermediate_act_fn = gelu
    for layer in network.vision.encoder.layers:
        layer.mlp.activation_fn = gelu


def longer(_, monkeypatch):
    monkeypatch.setattr("sar_eval.networks.image_reward.tokenizer.MAX_LENGTH", 77)


def called_with(change):
    """The text half is called with other arguments."""

    def patch(network, monkeypatch):
        forward = network.text.forward
        monkeypatch.setattr(network.text, "forward", lambda **given: forward(**(given | change(given))))

    return patch


def blip_start(network, monkeypatch):
    """BLIP's question answering has [ENC], the last of the vocabulary, as the first token."""
    enc = network.text.config.vocab_size - 1

    def replace(given):
        ids = given["input_ids"].clone()
        ids[:, 0] = enc
        return {"input_ids": ids}

    called_with(replace)(network, monkeypatch)


MISTAKES = {
    "vision eps": eps_of("vision"),
    "text eps": eps_of("text"),
    "tanh": tanh_gelu,
    "longer than 35": longer,
    "causal": called_with(lambda given: {"is_decoder": True}),
    "padding not masked": called_with(lambda g: {"attention_mask": torch.ones_like(g["attention_mask"])}),
    "[ENC] first": blip_start,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_another_network_gives_another_score(data, changed, mistake, monkeypatch) -> None:
    reward = changed()
    MISTAKES[mistake](reward.network, monkeypatch)
    assert data.error(reward) > VISIBLE


def test_the_padding_does_not_matter(data) -> None:
    """Every batch has 35 tokens; texts without padding have the same score."""
    pixels = data.reward.pixels([data.reward.prepare(data.images[0])])
    tokens, encoded = data.reward.network.encode_pictures(pixels), data.reward.tokenizer.encode("a red fox")
    padded = data.reward.first_tokens(tokens, [encoded])
    short = encoded._replace(ids=encoded.ids[: encoded.length])
    assert encoded.length < MAX_LENGTH
    assert (data.reward.first_tokens(tokens, [short]) - padded).abs().max() < HIDDEN
