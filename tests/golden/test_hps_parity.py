"""HPSv2 and SimpleAR's reward against the official code on a tiny ViT-H (parity data)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

pytest.importorskip("open_clip", reason="needs the extra scorers")
from sar_eval.errors import BadInput
from sar_eval.networks.clip import network, transforms
from sar_eval.networks.clip.source import HPS_V21, ClipSource
from sar_eval.networks.clip.tokenizers import open_clip_tokens
from sar_eval.scorers.clip import SCORER as CLIP
from sar_eval.scorers.clip import strip_markers
from sar_eval.scorers.hps import SCORER
from tests.clip_data import ClipData, check_pixels, padded, score_matrix

TOLERANCE = 1e-5
RESIZES = ("antialias", "aliased")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(parity, tmp_path_factory):
    return ClipData(parity / "hpsv2", tmp_path_factory.mktemp("hps"))


@pytest.fixture(scope="module")
def options(data):
    weights, config = data.unpacked("model.safetensors"), data.folder / "config.json"
    return {"weights": str(weights), "config": str(config)}


def test_the_pictures_are_decoded_as_there(data) -> None:
    check_pixels(data)


@pytest.mark.parametrize("resize", RESIZES)
def test_scores_are_the_official_ones(data, expected, options, pictures, texts, resize) -> None:
    named, rows = pictures
    with SCORER(resize=resize, **options) as scorer:
        actual = score_matrix(scorer, list(named.values()), texts)
    assert (actual - expected[f"scores/{resize}"][rows]).abs().max() < TOLERANCE
    key = "score" if resize == "antialias" else "score_aliased"
    for case in (case for case in data.cases["cases"] if case["image"] in named):
        row, column = list(named).index(case["image"]), data.cases["order"]["texts"].index(case["text"])
        assert actual[row, column] == pytest.approx(case[key], abs=TOLERANCE)


def test_the_two_resizes_differ_but_for_pictures_of_the_networks_size(expected, data) -> None:
    difference = (expected["scores/antialias"] - expected["scores/aliased"]).abs().max(1).values
    same = [name for name, d in zip(data.cases["order"]["images"], difference, strict=True) if d == 0]
    assert same == ["exact"]


def test_the_published_torch_form_gives_the_same(data, options, pictures, texts) -> None:
    named, _ = pictures
    path = data.unpacked("HPS_tiny_compressed.pt")
    with SCORER(**options) as first, SCORER(**{**options, "weights": str(path)}) as second:
        matrices = [score_matrix(s, list(named.values())[:2], texts[:2]) for s in (first, second)]
    assert (matrices[0] - matrices[1]).abs().max() < 1e-6  # the batches differ


def test_token_ids_are_the_official_ones(expected, texts) -> None:
    read = [open_clip_tokens(text) for text in texts]
    assert torch.equal(padded([tokens.ids for tokens in read]), expected["tokens"])
    assert [len(text) > 300 for text in texts if open_clip_tokens(text).truncated] == [True] * 2


@pytest.mark.parametrize("resize", RESIZES)
def test_pixels_and_features_are_the_official_ones(
    data, expected, options, pictures, texts, resize
) -> None:
    named, rows = pictures
    with SCORER(resize=resize, **options) as scorer:
        images = torch.stack(scorer.network.image_rows(list(named.values()), f"hps-{resize}"))
        features = scorer.network.text_features([open_clip_tokens(text) for text in texts])
    assert (F.normalize(images) - expected[f"image_features/{resize}"][rows]).abs().max() < TOLERANCE
    assert (F.normalize(features) - expected["text_features"]).abs().max() < TOLERANCE


def test_pixels_are_the_official_ones(data) -> None:
    pixels = load_file(data.unpacked("pixels.safetensors"))
    for name, wanted in pixels.items():
        resize, picture = name.split("/")
        actual = transforms.TRANSFORMS[f"hps-{resize}"](data.picture(picture), 224)
        assert torch.equal(actual, wanted), name


def _bytes_resized(picture, size) -> torch.Tensor:
    image = picture.rgb
    scale = size / max(image.size)
    sides = [max(round(side * scale), 1) for side in image.size]
    small = np.array(image.resize(sides, Image.Resampling.BICUBIC))
    return _padded(torch.from_numpy(small).permute(2, 0, 1).float() / 255, size)


def _padded(x: torch.Tensor, size: int, normalized: bool = False) -> torch.Tensor:
    height, width = x.shape[1:]
    left, top = (size - width) // 2, (size - height) // 2
    edges = (left, size - width - left, top, size - height - top)
    normalize = transforms._normalize
    return F.pad(normalize(x), edges) if normalized else normalize(F.pad(x, edges))


def _resized(picture, size, to_int=round) -> torch.Tensor:
    x = torch.from_numpy(np.array(picture.rgb)).permute(2, 0, 1)[None].float() / 255
    scale = size / max(x.shape[2:])
    sides = [max(to_int(side * scale), 1) for side in x.shape[2:]]
    return F.interpolate(x, sides, mode="bicubic", align_corners=False, antialias=True)[0]


MISTAKES = {
    "resized as bytes": _bytes_resized,
    "padded after normalising": lambda p, size: _padded(_resized(p, size), size, normalized=True),
    "clamped": lambda p, size: _padded(_resized(p, size).clamp(0, 1), size),
    "rounded half up": lambda p, size: _padded(_resized(p, size, lambda x: int(x + 0.5)), size),
    "cropped as CLIP": transforms.openai_pixels,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_in_resizing_is_seen(expected, options, pictures, texts, mistake, monkeypatch) -> None:
    """The same comparison fails by more than its tolerance."""
    named, rows = pictures
    monkeypatch.setitem(transforms.TRANSFORMS, mistake, MISTAKES[mistake])
    with SCORER(**options) as scorer:
        scorer.transform = mistake
        actual = score_matrix(scorer, list(named.values()), texts)
    assert (actual - expected["scores/antialias"][rows]).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("change", "error"), [({"quick_gelu": True}, 1e-3), ({"vision_cfg": {"head_width": 40}}, 1e-2)]
)
def test_another_activation_or_width_of_heads_is_seen(
    expected, options, pictures, texts, change, error, tmp_path, data
) -> None:
    """The tensors fit: only the scores tell (and the check of the activation, which is off here)."""
    named, rows = pictures
    config = json.loads((data.folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (tmp_path / "other.json").write_text(json.dumps(config))
    with SCORER(**options) as scorer:
        published = replace(HPS_V21, quick_gelu="quick_gelu" in change)
        source = ClipSource(published, options["weights"], str(tmp_path / "other.json"))
        scorer.network = network.ClipNetwork(source)
        actual = score_matrix(scorer, list(named.values()), texts)
    assert (actual - expected["scores/antialias"][rows]).abs().max() > error


def test_quickgelu_is_refused(options, tmp_path, data) -> None:
    config = json.loads((data.folder / "config.json").read_text())
    (tmp_path / "quick.json").write_text(json.dumps(config | {"quick_gelu": True}))
    with (
        pytest.raises(BadInput, match=r"has QuickGELU in its image tower, but .* trained with GELU"),
        SCORER(**{**options, "config": str(tmp_path / "quick.json")}),
    ):
        pass


def test_what_makes_the_official_code_fail_is_scored(data, options) -> None:
    """Four channels; 224 pixels wide and not square, which is neither resized nor padded there."""
    names = list(data.cases["official_fails"])
    assert set(names) == {"rgba", "exactwide"}
    pictures = [data.picture(name) for name in names]
    with SCORER(**options) as scorer:
        scores = [score.value for score in scorer.score(pictures, ["a cat"] * len(pictures))]
        assert all(-1 < score < 1 for score in scores)
    exactwide = transforms.hps_pixels(data.picture("exactwide"), 224)
    pixels = torch.from_numpy(np.array(data.picture("exactwide").rgb)).permute(2, 0, 1).float() / 255
    assert torch.equal(exactwide, transforms._normalize(F.pad(pixels, (0, 0, 37, 37))))


# SimpleAR's reward, whose network is of the same architecture.


@pytest.fixture(scope="module")
def simplear(data):
    return json.loads((data.folder / "simplear_cases.json").read_text())


def _decoded(picture, dtype: str) -> torch.Tensor:
    """As the data's stand-in for the decoder's output."""
    rgb = torch.from_numpy(np.array(picture.rgb)).permute(2, 0, 1).contiguous().float()
    return ((rgb / 127.5 - 1) * 1.15).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_simplears_rewards_are_the_official_ones(data, simplear, options, dtype) -> None:
    path = data.folder / "simplear_pixels_every4th.safetensors"  # in the full data alone
    pixels = load_file(path) if path.exists() else {}
    compared = 0
    with CLIP("simplear", decoder_dtype=dtype, prefix="", **options) as scorer:
        for case in simplear["cases"]:
            if case["decoder_dtype"] != dtype or not data.picture_path(case["image"]).exists():
                continue
            prepared = transforms.simplear_pixels(_decoded(data.picture(case["image"]), dtype), 224)
            if (wanted := pixels.get(f"{dtype}/{case['image']}")) is not None:
                assert (prepared[:, ::4, ::4] - wanted).abs().max() < TOLERANCE
            picture = data.picture(case["image"])
            picture.keep(("pixels", f"simplear-{dtype}", 224), prepared)  # in place of the stored picture's
            caption = case["prompt"].removeprefix("<|t2i|>").removesuffix("<|soi|>")
            (score,) = scorer.score([picture], [caption])
            assert score.value == pytest.approx(case["reward"], abs=TOLERANCE)
            compared += 1
    assert compared >= 4


def test_simplears_prompts_lose_letters_of_the_markers(simplear) -> None:
    """`str.strip` takes characters, not a word; the plain way gives other texts."""
    plain = 0
    for case in simplear["cases"]:
        assert strip_markers(case["prompt"]) == case["text_seen"]
        plain += case["prompt"].removeprefix("<|t2i|>").removesuffix("<|soi|>") == case["text_seen"]
    assert plain < len(simplear["cases"]) / 2


def test_the_decoders_precision_is_seen(simplear) -> None:
    cases = {(c["image"], c["prompt"], c["decoder_dtype"]): c["reward"] for c in simplear["cases"]}
    pairs = [(v, cases[(i, p, "bfloat16")]) for (i, p, d), v in cases.items() if d == "float32"]
    assert TOLERANCE < max(abs(a - b) for a, b in pairs) < 1e-3
