"""LAION's aesthetic predictors against the official code, with tiny heads and real ones (parity data)."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

pytest.importorskip("open_clip", reason="needs the extra scorers")
from sar_eval.errors import BadInput
from sar_eval.networks.clip.aesthetic_heads import LAYERS, AestheticHead, normalize_v2
from sar_eval.scorers.aesthetic import SCORER
from tests.clip_data import ClipData, check_pixels
from tests.parity_data import needs

TOLERANCE, TINY = 1e-5, 2e-5
TORCH_FORMS = {"v1": "tiny_v1_linear.pth", "v2": "tiny_v2_linearMSE.pth"}
REAL_V2 = "sac+logos+ava1-l14-linearMSE.pth"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(parity, tmp_path_factory):
    return ClipData(parity / "aesthetic", tmp_path_factory.mktemp("aesthetic"))


@pytest.fixture(scope="module")
def clip(data, parity, tmp_path_factory):
    """The same network as clipscore's; the committed part has it there."""
    if not (data.folder / "openai_tiny.json").exists():
        data = ClipData(parity / "clipscore", tmp_path_factory.mktemp("clip"))
    weights = data.unpacked("openai_tiny.safetensors")
    return {"clip_weights": str(weights), "config": str(data.folder / "openai_tiny.json")}


@pytest.fixture(scope="module")
def heads(data, tmp_path_factory):
    """The tiny heads in files of their own, by variant."""
    tensors, folder = load_file(data.unpacked("tiny_heads.safetensors")), tmp_path_factory.mktemp("heads")
    for variant in LAYERS:
        own = {name[3:]: t for name, t in tensors.items() if name.startswith(f"{variant}.")}
        save_file(own, folder / f"{variant}.safetensors")
    return {variant: str(folder / f"{variant}.safetensors") for variant in LAYERS}


def _head(path, expected) -> AestheticHead:
    """The real v1 head, from the tensors in the data."""
    save_file({"weight": expected["v1/weight"][None], "bias": expected["v1/bias"]}, path)
    return AestheticHead("v1", path)


def test_the_pictures_are_decoded_as_there(data) -> None:
    check_pixels(data)


@pytest.mark.parametrize("variant", LAYERS)
def test_scores_are_the_official_ones(data, clip, heads, variant) -> None:
    cases = [case for case in data.cases["cases"] if data.picture_path(case["image"]).exists()]
    pictures = [data.picture(case["image"]) for case in cases]
    with SCORER(variant, weights=heads[variant], **clip) as scorer:
        scores = [score.value for score in scorer.score(pictures, [""] * len(pictures))]
    assert len(scores) >= 8
    for score, case in zip(scores, cases, strict=True):
        assert score == pytest.approx(case[variant], abs=TINY), case["image"]
        if variant == "v2":
            assert score == pytest.approx(case["v2_imagereward_repo"], abs=TINY)


@pytest.mark.parametrize("variant", LAYERS)
def test_the_published_torch_form_is_read(data, heads, variant) -> None:
    head = AestheticHead(variant, data.unpacked(TORCH_FORMS[variant]))
    x = torch.randn(4, head.width, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head.score(x), AestheticHead(variant, Path(heads[variant])).score(x))


def test_the_real_v1_head_gives_the_official_scores(expected, tmp_path) -> None:
    scores = _head(tmp_path / "v1.safetensors", expected).score(expected["raw"])
    assert torch.allclose(scores, expected["v1"].flatten(), atol=TOLERANCE, rtol=0, equal_nan=True)
    assert scores.isnan().tolist() == [True] + [False] * (len(scores) - 1)  # the zero row


def test_the_real_v2_head_gives_the_official_scores(data, expected) -> None:
    path = needs(data.folder / "heads" / REAL_V2)
    scores = AestheticHead("v2", path).score(expected["raw"])
    assert (scores - expected["v2"].flatten()).abs().max() < TOLERANCE
    assert scores[0] == pytest.approx(float(expected["v2/affine_bias_float64"]), abs=TOLERANCE)


def test_half_precision_in_normalising_is_seen(data, expected) -> None:
    head = AestheticHead("v2", needs(data.folder / "heads" / REAL_V2))
    half = head.score(expected["raw"], half=True)
    assert (half - expected["v2/float16_normalisation"].flatten()).abs().max() < TOLERANCE
    assert 1e-4 < (half - expected["v2"].flatten()).abs().max() < 1e-3


def test_half_precision_of_a_long_vector_is_zero() -> None:
    long = torch.full((1, 64), 40.0)  # its norm is 320
    assert normalize_v2(long, half=True).abs().max() == 0
    assert normalize_v2(long).norm() == pytest.approx(1, abs=1e-6)


def test_the_real_v2_head_is_one_affine_map(expected) -> None:
    """The folded head in the data needs no file: official scores from 768 numbers and one."""
    unit = normalize_v2(expected["raw"]).double()
    weight, bias = expected["v2/affine_weight_float64"].flatten(), expected["v2/affine_bias_float64"]
    assert (unit @ weight + bias - expected["v2"].flatten()).abs().max() < TOLERANCE


def test_our_layers_are_that_map(expected, heads) -> None:
    head = AestheticHead("v2", Path(heads["v2"]))
    weight, bias = torch.eye(head.width).double(), torch.zeros(head.width).double()
    for w, b in head.layers:
        weight, bias = weight @ w.double().T, bias @ w.double().T + b.double()
    x = F.normalize(torch.randn(8, head.width, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(head.score(x).double(), (x.double() @ weight + bias)[:, 0], atol=1e-6)


def test_the_other_variants_head_is_named(clip, heads) -> None:
    for variant, other in (("v1", "v2"), ("v2", "v1")):
        with (
            pytest.raises(BadInput, match=rf"no head of aesthetic:{variant}: it is aesthetic:{other}'s"),
            SCORER(variant, weights=heads[other], **clip),
        ):
            pass


def test_a_head_of_another_clip_is_named(data, clip, expected, tmp_path) -> None:
    _head(tmp_path / "wide.safetensors", expected)
    with (
        pytest.raises(BadInput, match="takes 768 numbers, but this CLIP gives 64"),
        SCORER("v1", weights=str(tmp_path / "wide.safetensors"), **clip),
    ):
        pass
