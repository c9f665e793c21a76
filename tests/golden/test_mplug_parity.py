"""DPG's judge network against the original's outputs on tiny checkpoints (parity data)."""

import json
import shutil
import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sar_eval.networks.mplug.network import Answering
from sar_eval.networks.mplug.search import Rules, search
from sar_eval.networks.mplug.shape import MplugShape
from sar_eval.networks.mplug.tokenizer import START
from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import ROLES, expected_counts, expected_shapes, role_of
from tests.mplug_recipe import write_weights
from tests.parity_data import needs

pytestmark = pytest.mark.usefixtures("one_thread")
VARIANTS = ("stride6_distill", "stride3_plain")
IMAGES = ("noise", "shapes", "rgba")
CLOSE = 1e-5  # of a tensor's greatest absolute value
NEAR_TIE = 1e-4  # of two scores, below which lower ranks may trade places (the data's README)


class Case:
    """One variant: our network, and what the original made of the same files."""

    def __init__(self, source, folder) -> None:
        for file in source.iterdir():
            shutil.copyfile(file, folder / file.name)
        if not (folder / "pytorch_model.bin").exists():
            write_weights(folder)
        self.vqa = MplugVqa(folder)
        self.tensors = load_file(source / "expected.safetensors")
        self.told = json.loads((source / "expected.json").read_text())
        self.questions = self.told["questions"]
        self.bias = self.vqa.network.text_decoder.cls.predictions.bias
        self.plain = self.bias.clone()
        opened = {name: Image.open(source.parent / "images" / f"{name}.png") for name in IMAGES}
        self.images = {n: self.vqa.prepare(np.asarray(p.convert("RGB"))) for n, p in opened.items()}

    @cache  # noqa: B019 - lives as long as the module's fixture
    def seen(self, image):
        return self.vqa.network.see(self.vqa.pixels([self.images[image]]))

    def read(self, number):
        """Ids, mask and length of a question."""
        encoded = self.vqa.words.encode(self.questions[number])
        mask = torch.arange(len(encoded.ids))[None] < encoded.length
        return torch.tensor([encoded.ids]), mask, encoded.length

    def shift(self, delta) -> None:
        """Add one of the data's amounts to the decoder's bias."""
        bias = self.plain.clone()
        for word, amount in self.told["deltas"][delta].items():
            bias[self.vqa.words.words.index(word)] += amount
        self.bias.data = bias


@pytest.fixture(scope="module", params=VARIANTS)
def case(request, parity, tmp_path_factory):
    with torch.inference_mode():
        yield Case(needs(parity / "mplug" / request.param), tmp_path_factory.mktemp(request.param))


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max() / expected.abs().max()) < CLOSE


@pytest.mark.parametrize("image", IMAGES)
def test_images(case, image) -> None:
    pixels = case.vqa.pixels([case.images[image]])
    assert torch.equal(pixels[0], case.tensors[f"{image}.pixel_values"])
    assert close(case.vqa.network.visual_encoder.visual(pixels)[0], case.tensors[f"{image}.visual"])
    assert close(case.seen(image)[0], case.tensors[f"{image}.image_embeds"])


def test_questions(case) -> None:
    for number in range(len(case.questions)):
        ids, mask, length = case.read(number)
        assert torch.equal(ids[0], case.tensors[f"q{number}.input_ids"])
        assert torch.equal(mask[0].long(), case.tensors[f"q{number}.attention_mask"])
        found = case.vqa.network.text_encoder(ids, mask)
        assert close(found[0, :length], case.tensors[f"q{number}.text_embeds"][:length])


@pytest.mark.parametrize("image", IMAGES)
def test_fusion_and_the_first_token(case, image) -> None:
    network = case.vqa.network
    for number in range(len(case.questions)):
        ids, mask, length = case.read(number)
        text = network.text_encoder(ids, mask)
        text, tokens, _ = network.fusion_encoder(text, mask, case.seen(image), [1])
        assert close(text[0, :length], case.tensors[f"{image}.{number}.fusion_text"][:length])
        rewritten = case.tensors.get(f"{image}.{number}.fusion_image")
        assert (rewritten is None) == (not case.vqa.shape.rewriting)
        assert torch.equal(tokens, case.seen(image)) if rewritten is None else close(tokens[0], rewritten)
        logits = Answering(network.text_decoder, text, mask, tokens, [1]).start(START)
        assert close(logits[0], case.tensors[f"{image}.{number}.first_logits"])


@pytest.mark.parametrize("delta", ["base", "long", "short"])
def test_answers_do_not_depend_on_their_company(case, delta) -> None:
    """All 180 answers and their ids: all at once, image by image, and one by one in another order."""
    case.shift(delta)
    together = case.vqa.answer(list(case.images.values()), [case.questions] * len(IMAGES))
    expected = {(c["image"], c["question"]): c for c in case.told["cases"] if c["delta"] == delta}
    assert len(expected) == len(IMAGES) * len(case.questions) == 30
    for image, replies in zip(IMAGES, together, strict=True):
        by_image = case.vqa.answer([case.images[image]], [case.questions])[0]
        for number in reversed(range(len(case.questions))):
            told = expected[image, number]
            alone = case.vqa.answer([case.images[image]], [[case.questions[number]]])[0][0]
            for reply in (replies[number], by_image[number], alone):
                assert (reply.text, list(reply.ids)) == (told["answer"], told["answer_ids"])
                assert (reply.text == "yes") == told["official_yes"]
                assert reply.soft == pytest.approx(alone.soft, abs=1e-5)


class Watched:
    """A decoding that notes which texts it was asked to go on with."""

    def __init__(self, decoding) -> None:
        self.decoding, self.texts, self.steps = decoding, [[START]], [[[START]] * 5]

    def advance(self, tokens, rows):
        pairs = zip(rows.flatten().tolist(), tokens.flatten().tolist(), strict=True)
        self.texts = [[*self.texts[row], token] for row, token in pairs]
        self.steps.append(self.texts)
        return self.decoding.advance(tokens, rows)


def same_but_near_ties(found, expected) -> bool:
    """Equal rankings, or differing only where neighbours' scores are within a near tie."""
    places = {tuple(text): score for score, text in expected}
    return len(found) == len(expected) and all(
        score == pytest.approx(told, abs=NEAR_TIE)
        and places.get(tuple(text), told) == pytest.approx(told, abs=NEAR_TIE)
        for (score, text), (told, _) in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("delta", ["base", "long", "short"])
def test_lower_ranks_steps_and_beams(case, delta) -> None:
    case.shift(delta)
    for told in (c for c in case.told["cases"] if c["delta"] == delta):
        ids, mask, _ = case.read(told["question"])
        answering = case.vqa.network.ask(case.seen(told["image"]), ids, mask, [1])
        first, watched = answering.start(START), Watched(answering)
        found = search(first, watched, case.vqa.rules)[0]
        assert found.steps == told["steps"]
        assert list(found.ids) == told["answer_ids"]
        expected = [(one["score"], one["ids"]) for one in told["nbest"]]
        assert same_but_near_ties(found.hypotheses, expected), told
        for ours, theirs in zip(watched.steps, told.get("beams_per_step", watched.steps), strict=True):
            assert sorted(ours) == sorted(theirs)


class MadeUp:
    """The synthetic decoder of beam_search.json: logits are chance by state and text."""

    def __init__(self, data, told) -> None:
        self.size, self.told = data["V"], told
        self.bias = np.zeros(self.size, np.float32)
        for word, amount in told["bias"].items():
            self.bias[int(word)] = amount
        self.texts = [(state, [data["start"]]) for state in told["states"]]

    def logits(self) -> torch.Tensor:
        rows = []
        for state, text in self.texts:
            name = f"{self.told['seed']}|{state}|{','.join(map(str, text))}"
            chance = np.random.RandomState(zlib.crc32(name.encode()))
            drawn = (chance.standard_normal(self.size) * self.told["temp"]).astype(np.float32)
            rows.append(drawn + self.bias)
        return torch.from_numpy(np.stack(rows))

    def advance(self, tokens, rows):
        pairs = zip(rows.flatten().tolist(), tokens.flatten().tolist(), strict=True)
        self.texts = [(self.texts[row][0], [*self.texts[row][1], token]) for row, token in pairs]
        return self.logits().view(*tokens.shape, -1)


def test_beam_search(parity) -> None:
    """All 120 cases: ids, scores and the number of hypotheses of every row."""
    data = json.loads((parity / "mplug" / "beam_search.json").read_text())
    assert len(data["cases"]) == 120
    for told in data["cases"]:
        rules = Rules(told["beam_size"], told["min_length"], told["max_length"], data["start"], data["end"])
        decoding = MadeUp(data, told)
        found = search(decoding.logits(), decoding, rules)
        assert [list(one.ids) for one in found] == [best["ids"] for best in told["best"]]
        scores = [best["score"] for best in told["best"]]
        assert [one.hypotheses[0][0] for one in found] == pytest.approx(scores, rel=1e-5)
        assert [len(one.hypotheses) for one in found] == told["n_hyp"]


LARGE = MplugShape(
    side=504,
    patch=14,
    vision_width=1024,
    vision_layers=24,
    clip_text_layers=12,
    hidden=768,
    heads=12,
    inner=3072,
    epsilon=1e-12,
    vocabulary=30522,
    positions=512,
    types=2,
    text_layers=6,
    stored_layers=12,
    fusion_layers=6,
    stride=6,
    decoder_layers=12,
    beams=5,
    shortest=1,
    longest=10,
    distilled=True,
)


def test_the_large_network_has_the_originals_tensors(parity) -> None:
    """Names, shapes and the role of every one of the 2,378 keys of the real class."""
    manifest = json.loads((parity / "mplug" / "manifest_large.json").read_text())
    used = {name: tuple(size) for name, (size, _, role) in manifest["keys"].items() if role == "used"}
    assert expected_shapes(LARGE) == used
    wanted = expected_shapes(LARGE)
    for name, (_, _, role) in manifest["keys"].items():
        assert role_of(name, wanted, LARGE) == role.split(":")[0], name
    counts = expected_counts(LARGE)
    assert counts == {**dict.fromkeys(ROLES, 0), **manifest["counts"]}
    assert expected_counts(replace(LARGE, distilled=False)) == {**counts, "momentum": 0}
