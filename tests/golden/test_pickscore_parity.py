"""PickScore against the official function on a tiny ViT-H (parity data)."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

pytest.importorskip("open_clip", reason="needs the extra scorers")
from sar_eval.networks.clip import transforms
from sar_eval.networks.clip.tokenizers import hf_tokens, openai_tokens
from sar_eval.scorers.pickscore import SCORER
from sar_eval.stats.preference import preference
from tests.clip_data import ClipData, check_pixels, score_matrix

SCORES, COSINES, PROBABILITIES, FEATURES = 1e-3, 1e-5, 1e-4, 1e-5
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(parity, tmp_path_factory):
    return ClipData(parity / "pickscore", tmp_path_factory.mktemp("pickscore"))


@pytest.fixture(scope="module")
def options(data):
    weights, config = data.unpacked("model.safetensors"), data.folder / "config.json"
    return {"weights": str(weights), "config": str(config)}


@pytest.fixture(scope="module")
def matrix(options, pictures, texts):
    with SCORER(**options) as scorer:
        return score_matrix(scorer, list(pictures[0].values()), texts)


def test_the_pictures_are_decoded_as_there(data) -> None:
    check_pixels(data)


def test_scores_are_the_official_ones(data, expected, matrix, pictures) -> None:
    assert (matrix - expected["scores"][pictures[1]]).abs().max() < SCORES
    scale = data.cases["logit_scale_exp"]
    cosines = expected["image_embs"][pictures[1]] @ expected["text_embs"].T
    assert (matrix / scale - cosines).abs().max() < COSINES


def test_the_logit_scale_is_the_files(data, options) -> None:
    with SCORER(**options) as scorer:
        assert scorer.network.logit_scale == pytest.approx(data.cases["logit_scale_exp"], abs=1e-5)
        assert abs(scorer.network.logit_scale - 100) > 1e-2


def test_preferences_are_the_official_ones(data, matrix, pictures) -> None:
    named, order = list(pictures[0]), data.cases["order"]["texts"]
    compared = 0
    for case in data.cases["cases"]:
        if set(case["images"]) <= set(named):
            first, second = (
                matrix[named.index(n), order.index(case["text"])].item() for n in case["images"]
            )
            assert [first, second] == pytest.approx(case["scores"], abs=SCORES)
            both = [preference(first, second), preference(second, first)]
            assert both == pytest.approx(case["probs"], abs=PROBABILITIES)
            compared += 1
    assert compared >= 3


def test_features_are_the_official_ones(expected, options, pictures, texts) -> None:
    with SCORER(**options) as scorer:
        images = torch.stack(scorer.network.image_rows(list(pictures[0].values()), "hf"))
        features = scorer.network.text_features([hf_tokens(text) for text in texts])
    assert (F.normalize(images) - expected["image_embs"][pictures[1]]).abs().max() < FEATURES
    assert (F.normalize(features) - expected["text_embs"]).abs().max() < FEATURES


def test_the_torch_form_gives_the_same(data, options, pictures, texts, matrix) -> None:
    path = data.unpacked("pytorch_model.bin")
    with SCORER(**{**options, "weights": str(path)}) as scorer:
        actual = score_matrix(scorer, list(pictures[0].values())[:2], texts[:2])
    assert (actual - matrix[:2, :2]).abs().max() < SCORES / 10


def test_ids_are_the_official_ones(data) -> None:
    for name, ids in data.cases["tokens"].items():
        tokens = hf_tokens(data.texts[name])
        assert list(tokens.ids) == ids, name
        assert tokens.truncated == (name in ("long", "over77"))


def test_ids_differ_from_openais_where_they_do_there(data) -> None:
    differing = [name for name, text in data.texts.items() if hf_tokens(text) != openai_tokens(text)]
    # The reference compares with OpenAI's tokenizer under open_clip's names of the special tokens.
    assert {*differing, "special"} == set(data.cases["texts_whose_ids_differ_from_openai_tokenizer"])


def test_pixels_are_the_official_ones(data) -> None:
    pixels = load_file(data.unpacked("pixels_every2nd.safetensors"))
    for name, wanted in pixels.items():
        actual = transforms.hf_pixels(data.picture(name), 224)[:, ::2, ::2]
        assert (actual - wanted).abs().max() < 1e-6, name


@pytest.mark.parametrize(
    ("transform", "low", "high"), [("openai", 1.0, 100.0), ("hf-torchvision", SCORES, 0.1)]
)
def test_other_transforms_are_seen(options, expected, pictures, texts, transform, low, high) -> None:
    """torchvision's crop rounds, and transforms 5's default processor resizes otherwise."""
    named, rows = pictures
    with SCORER(**options) as scorer:
        found = scorer.network.score_pairs
        scale = scorer.network.logit_scale
        columns = [
            [s.value for s in found(list(named.values()), [t] * len(named), transform, hf_tokens)]
            for t in texts
        ]
    error = (scale * torch.tensor(columns).T - expected["scores"][rows]).abs().max()
    assert low < error < high


def test_ftfy_would_be_seen(options, expected, data, pictures, texts) -> None:
    """Ids of OpenAI's tokenizer: curly quotes and HTML entities are other words."""
    named, rows = pictures
    column = data.cases["order"]["texts"].index("html")
    with SCORER(**options) as scorer:
        values = [
            s.value * scorer.network.logit_scale
            for s in scorer.network.score_pairs(
                list(named.values()), [texts[column]] * len(named), "hf", openai_tokens
            )
        ]
    assert (torch.tensor(values) - expected["scores"][rows, column]).abs().max() > 1
