"""CLIPScore's variants hessel, imagereward and torchmetrics against the official code (parity data)."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

pytest.importorskip("open_clip", reason="needs the extra scorers")
from sar_eval.errors import BadInput
from sar_eval.networks.clip import transforms
from sar_eval.networks.clip.tokenizers import (
    hf_tokens,
    hf_tokens_without_end,
    open_clip_tokens,
    openai_tokens,
)
from sar_eval.scorers.clip import HESSEL_PREFIX, SCORER
from tests.clip_data import ClipData, check_pixels, padded, score_matrix

# In units of the score; of hessel 2.5 times a cosine's.
TOLERANCES = {"hessel": 2.5e-5, "imagereward": 1e-5}
FEATURES, TORCHMETRICS = 2e-5, 1e-3
FORMS = ("openai_tiny.torchscript.pt", "openai_tiny.state_dict.pt", "openai_tiny.safetensors")
PROCESSORS = {"pillow": "torchmetrics_cases.json", "torchvision": "torchmetrics_cases_transformers5.json"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(parity, tmp_path_factory):
    return ClipData(parity / "clipscore", tmp_path_factory.mktemp("clipscore"))


@pytest.fixture(scope="module")
def options(data):
    weights, config = data.unpacked("openai_tiny.safetensors"), data.folder / "openai_tiny.json"
    return {"weights": str(weights), "config": str(config)}


@pytest.fixture(scope="module")
def hf_options(data):
    weights, config = data.unpacked("hf_tiny.safetensors"), data.folder / "hf_tiny.json"
    return {"weights": str(weights), "config": str(config)}


def test_the_pictures_are_decoded_as_there(data) -> None:
    check_pixels(data)


@pytest.mark.parametrize("variant", TOLERANCES)
def test_scores_are_the_official_ones(data, expected, options, pictures, texts, variant) -> None:
    named, rows = pictures
    with SCORER(variant, **options) as scorer:
        actual = score_matrix(scorer, list(named.values()), texts)
    assert (actual - expected[f"scores/{variant}"][rows]).abs().max() < TOLERANCES[variant]
    for case in (case for case in data.cases["cases"] if case["image"] in named):
        row, column = list(named).index(case["image"]), data.cases["order"]["texts"].index(case["text"])
        assert actual[row, column] == pytest.approx(case[variant], abs=TOLERANCES[variant])


def test_one_variant_has_negative_scores_the_other_not(expected, options, pictures, texts) -> None:
    named, rows = pictures
    assert expected["scores/imagereward"].min() < 0 == expected["scores/hessel"].min()
    row = int(expected["scores/imagereward"][rows].min(1).values.argmin())
    column = int(expected["scores/imagereward"][rows][row].argmin())
    with SCORER("hessel", **options) as scorer:
        (score,) = scorer.score([list(named.values())[row]], [texts[column]])
    assert score.value >= 0
    assert score.value == max(2.5 * score.more["cosine"], 0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_openais_weights_is_read(data, expected, options, pictures, form) -> None:
    """Raw features: half precision in the file, widened."""
    named, rows = pictures
    path = data.unpacked(form)
    with SCORER("imagereward", **{**options, "weights": str(path)}) as scorer:
        features = torch.stack(scorer.network.image_rows(list(named.values()), "openai"))
    assert (features - expected["image_features/raw"][rows]).abs().max() < FEATURES


def test_text_features_and_ids_are_the_official_ones(expected, options, texts) -> None:
    prefixed = [openai_tokens(HESSEL_PREFIX + text) for text in texts]
    assert torch.equal(padded([openai_tokens(text).ids for text in texts]), expected["tokens"])
    assert torch.equal(padded([tokens.ids for tokens in prefixed]), expected["tokens/hessel"])
    with SCORER("hessel", **options) as scorer:
        features = scorer.network.text_features(prefixed)
    assert (features - expected["text_features/raw/hessel"]).abs().max() < FEATURES


def test_only_literal_special_tokens_differ_from_open_clips_ids(data) -> None:
    differing = [name for name, t in data.texts.items() if open_clip_tokens(t) != openai_tokens(t)]
    assert differing == ["special"]


def test_pixels_are_the_official_ones(data) -> None:
    pixels = load_file(data.unpacked("pixels_every2nd.safetensors"))
    for name, wanted in pixels.items():
        assert torch.equal(transforms.openai_pixels(data.picture(name), 224)[:, ::2, ::2], wanted), name


def _rgb_first(picture, size) -> torch.Tensor:
    return transforms.openai_pixels(type(picture)(picture.rgb), size)


def _crop_rounds_down(picture, size) -> torch.Tensor:
    image = transforms._short_side(picture.image, size)
    left, top = ((side - size) // 2 for side in image.size)
    cropped = image.crop((left, top, left + size, top + size)).convert("RGB")
    return transforms._normalize(transforms._to_tensor(cropped))


@pytest.mark.parametrize(
    ("mistake", "make", "seen_in"),
    [
        ("RGB first", _rgb_first, {"palette", "rgba"}),
        ("crop rounds down", _crop_rounds_down, {"odd", "palette"}),
    ],
)
def test_each_mistake_in_resizing_is_seen(
    expected, options, pictures, texts, mistake, make, seen_in, monkeypatch
) -> None:
    named, rows = pictures
    monkeypatch.setitem(transforms.TRANSFORMS, mistake, make)
    with SCORER("imagereward", **options) as scorer:
        scorer.transform = mistake
        actual = score_matrix(scorer, list(named.values()), texts)
    error = (actual - expected["scores/imagereward"][rows]).abs().max(1).values
    assert {name for name, e in zip(named, error, strict=True) if e > 100 * 1e-5} >= seen_in


def test_plain_gelu_is_refused(data, options, tmp_path) -> None:
    config = json.loads((data.folder / "openai_tiny.json").read_text())
    (tmp_path / "plain.json").write_text(json.dumps(config | {"quick_gelu": False}))
    with (
        pytest.raises(BadInput, match="GELU in its image tower"),
        SCORER("hessel", **{**options, "config": str(tmp_path / "plain.json")}),
    ):
        pass


# torchmetrics, on Hugging Face's form of the weights.


@pytest.fixture(scope="module", params=PROCESSORS)
def torchmetrics(request, data):
    return request.param, json.loads((data.folder / PROCESSORS[request.param]).read_text())


def test_torchmetrics_scores_are_the_official_ones(data, torchmetrics, hf_options) -> None:
    processor, cases = torchmetrics
    present = [case for case in cases["cases"] if data.picture_path(case["image"]).exists()]
    pictures = [data.picture(case["image"]) for case in present]
    prompts = [data.texts[case["text"]] for case in present]
    with SCORER("torchmetrics", processor=processor, **hf_options) as scorer:
        scores = list(scorer.score(pictures, prompts))
    assert len(present) >= 8
    for score, case in zip(scores, present, strict=True):
        for end in ("eos2", "eos49407"):  # of the configuration; both read the same token
            assert score.value == pytest.approx(case[end], abs=TORCHMETRICS), case


def test_its_mean_is_taken_before_the_maximum(data, torchmetrics, hf_options) -> None:
    processor, cases = torchmetrics
    first = cases["cases"][: cases["batch_mean_of_first_cases"]["first"]]
    if not all(data.picture_path(case["image"]).exists() for case in first):
        pytest.skip("some of these pictures are only in the full reference data: set SAR_EVAL_PARITY")
    pictures, prompts = zip(
        *((data.picture(c["image"]), data.texts[c["text"]]) for c in first), strict=True
    )
    with SCORER("torchmetrics", processor=processor, **hf_options) as scorer:
        scores = list(scorer.score(pictures, prompts))
    mean = max(sum(100 * score.more["cosine"] for score in scores) / len(scores), 0)
    assert mean == pytest.approx(cases["batch_mean_of_first_cases"]["eos2"], abs=TORCHMETRICS)
    clamped = sum(score.value for score in scores) / len(scores)
    assert (clamped == pytest.approx(mean, abs=TORCHMETRICS)) == all(s.value > 0 for s in scores)


def test_the_two_processors_differ(data) -> None:
    old, new = (json.loads((data.folder / name).read_text())["cases"] for name in PROCESSORS.values())
    difference = max(abs(a["eos2"] - b["eos2"]) for a, b in zip(old, new, strict=True))
    assert TORCHMETRICS < difference < 0.1


def test_its_ids_are_the_official_ones(data, torchmetrics) -> None:
    for name, ids in torchmetrics[1]["tokens"].items():
        assert list(hf_tokens_without_end(data.texts[name]).ids) == ids, name


def test_every_long_prompt_has_the_same_score(data, hf_options) -> None:
    """Its end token is cut off, and the start token is read, which has seen no word."""
    long, over = data.texts["long"], data.texts["over77"]
    assert hf_tokens(long).ids[-1] == 49407 != hf_tokens_without_end(long).ids[-1]
    picture = data.picture("odd")
    with SCORER("torchmetrics", **hf_options) as scorer:
        scores = list(scorer.score([picture] * 3, [long, over, data.texts["short"]]))
        whole = scorer.network.text_features([hf_tokens(long), hf_tokens(over)])
        cut = scorer.network.text_features([hf_tokens_without_end(long), hf_tokens_without_end(over)])
    assert [score.truncated for score in scores] == [True, True, False]
    assert scores[0].more == pytest.approx(scores[1].more, abs=1e-6)
    assert F.cosine_similarity(cut[0], cut[1], dim=0) == pytest.approx(1, abs=1e-6)
    assert F.cosine_similarity(whole[0], whole[1], dim=0) < 0.99
