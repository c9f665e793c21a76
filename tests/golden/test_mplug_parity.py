"""mPLUG against the original's outputs on tiny checkpoints (parity data)."""

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

from sar_eval.networks.mplug.network import AnswerDecoder
from sar_eval.networks.mplug.search import SearchConfig, beam_search
from sar_eval.networks.mplug.shape import MplugShape
from sar_eval.networks.mplug.tokenizer import START
from sar_eval.networks.mplug.vqa import MplugVqa
from sar_eval.networks.mplug.weights import ROLES, expected_counts, expected_shapes, role_of
from tests.mplug_recipe import write_weights
from tests.parity_data import needs

pytestmark = pytest.mark.usefixtures("one_thread")
VARIANTS = ("stride6_distill", "stride3_plain")
IMAGES = ("noise", "shapes", "rgba")
TOLERANCE = 1e-5  # relative to a tensor's largest absolute value
NEAR_TIE = 1e-4  # difference of scores below which lower ranks may be swapped (the data's README)


class Case:
    """One variant: our network, and the original's outputs for the same files."""

    def __init__(self, source, folder) -> None:
        for file in source.iterdir():
            shutil.copyfile(file, folder / file.name)
        if not (folder / "pytorch_model.bin").exists():
            write_weights(folder)
        self.vqa = MplugVqa(folder)
        self.tensors = load_file(source / "expected.safetensors")
        self.expected = json.loads((source / "expected.json").read_text())
        self.questions = self.expected["questions"]
        self.bias = self.vqa.network.text_decoder.cls.predictions.bias
        self.original_bias = self.bias.clone()
        opened = {name: Image.open(source.parent / "images" / f"{name}.png") for name in IMAGES}
        self.images = {n: self.vqa.prepare(np.asarray(p.convert("RGB"))) for n, p in opened.items()}

    @cache  # noqa: B019 - lives as long as the module's fixture
    def image_tokens(self, image):
        return self.vqa.network.encode_images(self.vqa.pixels([self.images[image]]))

    def encode(self, number):
        """Ids, mask and length of a question."""
        encoded = self.vqa.tokenizer.encode(self.questions[number])
        mask = torch.arange(len(encoded.ids))[None] < encoded.length
        return torch.tensor([encoded.ids]), mask, encoded.length

    def shift(self, delta) -> None:
        """Add one of the data's `deltas` to the decoder's bias."""
        bias = self.original_bias.clone()
        for word, amount in self.expected["deltas"][delta].items():
            bias[self.vqa.tokenizer.words.index(word)] += amount
        self.bias.data = bias


@pytest.fixture(scope="module", params=VARIANTS)
def case(request, parity, tmp_path_factory):
    with torch.inference_mode():
        yield Case(needs(parity / "mplug" / request.param), tmp_path_factory.mktemp(request.param))


def close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((actual - expected).abs().max() / expected.abs().max()) < TOLERANCE


@pytest.mark.parametrize("image", IMAGES)
def test_image_encoder(case, image) -> None:
    pixels = case.vqa.pixels([case.images[image]])
    assert torch.equal(pixels[0], case.tensors[f"{image}.pixel_values"])
    assert close(case.vqa.network.visual_encoder.visual(pixels)[0], case.tensors[f"{image}.visual"])
    assert close(case.image_tokens(image)[0], case.tensors[f"{image}.image_embeds"])


def test_question_encoder(case) -> None:
    for number in range(len(case.questions)):
        ids, mask, length = case.encode(number)
        assert torch.equal(ids[0], case.tensors[f"q{number}.input_ids"])
        assert torch.equal(mask[0].long(), case.tensors[f"q{number}.attention_mask"])
        text = case.vqa.network.text_encoder(ids, mask)
        assert close(text[0, :length], case.tensors[f"q{number}.text_embeds"][:length])


@pytest.mark.parametrize("image", IMAGES)
def test_fusion_and_the_first_token(case, image) -> None:
    network = case.vqa.network
    for number in range(len(case.questions)):
        ids, mask, length = case.encode(number)
        text = network.text_encoder(ids, mask)
        text, tokens, _ = network.fusion_encoder(text, mask, case.image_tokens(image), [1])
        assert close(text[0, :length], case.tensors[f"{image}.{number}.fusion_text"][:length])
        updated = case.tensors.get(f"{image}.{number}.fusion_image")
        assert (updated is None) == (not case.vqa.shape.connected_layers)
        assert (
            torch.equal(tokens, case.image_tokens(image)) if updated is None else close(tokens[0], updated)
        )
        logits = AnswerDecoder(network.text_decoder, text, mask, tokens, [1]).start(START)
        assert close(logits[0], case.tensors[f"{image}.{number}.first_logits"])


@pytest.mark.parametrize("delta", ["base", "long", "short"])
def test_answers_are_the_originals_in_any_batch(case, delta) -> None:
    """All 180 answers and their ids: as one batch, by image, and one by one in another order."""
    case.shift(delta)
    together = case.vqa.answer(list(case.images.values()), [case.questions] * len(IMAGES))
    expected = {(c["image"], c["question"]): c for c in case.expected["cases"] if c["delta"] == delta}
    assert len(expected) == len(IMAGES) * len(case.questions) == 30
    for image, outputs in zip(IMAGES, together, strict=True):
        by_image = case.vqa.answer([case.images[image]], [case.questions])[0]
        for number in reversed(range(len(case.questions))):
            original = expected[image, number]
            alone = case.vqa.answer([case.images[image]], [[case.questions[number]]])[0][0]
            for output in (outputs[number], by_image[number], alone):
                assert (output.text, list(output.ids)) == (original["answer"], original["answer_ids"])
                assert (output.text == "yes") == original["official_yes"]
                assert output.soft == pytest.approx(alone.soft, abs=1e-5)


class RecordingDecoder:
    """A decoder that records the beams of each step."""

    def __init__(self, decoder) -> None:
        self.decoder, self.texts, self.steps = decoder, [[START]], [[[START]] * 5]

    def advance(self, tokens, beams):
        pairs = zip(beams.flatten().tolist(), tokens.flatten().tolist(), strict=True)
        self.texts = [[*self.texts[beam], token] for beam, token in pairs]
        self.steps.append(self.texts)
        return self.decoder.advance(tokens, beams)


def same_but_near_ties(hypotheses, expected) -> bool:
    """Equal rankings, or differing only where neighbours' scores are within a near tie."""
    score_of = {tuple(text): score for score, text in expected}
    return len(hypotheses) == len(expected) and all(
        score == pytest.approx(expected_score, abs=NEAR_TIE)
        and score_of.get(tuple(text), expected_score) == pytest.approx(expected_score, abs=NEAR_TIE)
        for (score, text), (expected_score, _) in zip(hypotheses, expected, strict=True)
    )


@pytest.mark.parametrize("delta", ["base", "long", "short"])
def test_lower_ranks_steps_and_beams(case, delta) -> None:
    case.shift(delta)
    for original in (c for c in case.expected["cases"] if c["delta"] == delta):
        ids, mask, _ = case.encode(original["question"])
        tokens = case.image_tokens(original["image"])
        decoder = case.vqa.network.encode_questions(tokens, ids, mask, [1])
        logits, recorder = decoder.start(START), RecordingDecoder(decoder)
        result = beam_search(logits, recorder, case.vqa.search_config)[0]
        assert result.steps == original["steps"]
        assert list(result.ids) == original["answer_ids"]
        expected = [(hypothesis["score"], hypothesis["ids"]) for hypothesis in original["nbest"]]
        assert same_but_near_ties(result.hypotheses, expected), original
        theirs = original.get("beams_per_step", recorder.steps)
        for our_beams, their_beams in zip(recorder.steps, theirs, strict=True):
            assert sorted(our_beams) == sorted(their_beams)


class SyntheticDecoder:
    """The decoder of beam_search.json: logits are random numbers seeded by state and text."""

    def __init__(self, data, case) -> None:
        self.size, self.case = data["V"], case
        self.bias = np.zeros(self.size, np.float32)
        for word, amount in case["bias"].items():
            self.bias[int(word)] = amount
        self.texts = [(state, [data["start"]]) for state in case["states"]]

    def logits(self) -> torch.Tensor:
        rows = []
        for state, text in self.texts:
            name = f"{self.case['seed']}|{state}|{','.join(map(str, text))}"
            rng = np.random.RandomState(zlib.crc32(name.encode()))
            noise = (rng.standard_normal(self.size) * self.case["temp"]).astype(np.float32)
            rows.append(noise + self.bias)
        return torch.from_numpy(np.stack(rows))

    def advance(self, tokens, beams):
        pairs = zip(beams.flatten().tolist(), tokens.flatten().tolist(), strict=True)
        self.texts = [(self.texts[beam][0], [*self.texts[beam][1], token]) for beam, token in pairs]
        return self.logits().view(*tokens.shape, -1)


def test_beam_search(parity) -> None:
    """All 120 cases: ids, scores and the number of hypotheses of every question."""
    data = json.loads((parity / "mplug" / "beam_search.json").read_text())
    assert len(data["cases"]) == 120
    for case in data["cases"]:
        lengths = case["min_length"], case["max_length"]
        config = SearchConfig(case["beam_size"], *lengths, data["start"], data["end"])
        decoder = SyntheticDecoder(data, case)
        results = beam_search(decoder.logits(), decoder, config)
        assert [list(result.ids) for result in results] == [best["ids"] for best in case["best"]]
        scores = [best["score"] for best in case["best"]]
        assert [result.hypotheses[0][0] for result in results] == pytest.approx(scores, rel=1e-5)
        assert [len(result.hypotheses) for result in results] == case["n_hyp"]


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
    """Names, shapes and roles of all 2,378 keys of modelscope's class."""
    manifest = json.loads((parity / "mplug" / "manifest_large.json").read_text())
    used = {name: tuple(size) for name, (size, _, role) in manifest["keys"].items() if role == "used"}
    assert expected_shapes(LARGE) == used
    for name, (_, _, role) in manifest["keys"].items():
        assert role_of(name, used, LARGE) == role.split(":")[0], name
    counts = expected_counts(LARGE)
    assert counts == {**dict.fromkeys(ROLES, 0), **manifest["counts"]}
    assert expected_counts(replace(LARGE, distilled=False)) == {**counts, "momentum": 0}
