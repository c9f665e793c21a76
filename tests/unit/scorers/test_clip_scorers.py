"""The scorers hps, clip, aesthetic and pickscore on tiny CLIPs, alone and together."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

pytest.importorskip("open_clip", reason="needs the extra geneval")
from sar_eval import discover
from sar_eval.errors import BadInput, DeviceLost
from sar_eval.images.picture import Picture
from sar_eval.networks.clip.architecture import build, read_architecture
from sar_eval.networks.clip.network import ClipNetwork
from sar_eval.scoring import ScorerSet
from sar_eval.stats.preference import preference
from sar_eval.tensors.published_weights import WEIGHTS

NAMES = ("hps", "clip", "aesthetic", "pickscore")
LONG = "a cat " * 2000
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def options(tiny_clip, tmp_path_factory):
    """Tables of options by scorer's name: a tiny network with each activation, tiny heads."""
    folder = tmp_path_factory.mktemp("scorers")
    plain = json.loads(tiny_clip["config"].read_text()) | {"quick_gelu": False}
    (folder / "plain.json").write_text(json.dumps(plain))
    generator = torch.Generator().manual_seed(0)
    sizes = {"": (16, 1)}
    layers = zip((0, 2, 4, 6, 7), ((16, 8), (8, 8), (8, 4), (4, 4), (4, 1)), strict=True)
    for variant, parts in (("v1", sizes), ("v2", {f"layers.{n}.": size for n, size in layers})):
        state = {f"{p}weight": torch.randn(o, i, generator=generator) for p, (i, o) in parts.items()}
        state |= {f"{p}bias": torch.randn(o, generator=generator) for p, (_, o) in parts.items()}
        save_file(state, folder / f"{variant}.safetensors")
    weights, quick = str(tiny_clip["weights"]), str(tiny_clip["config"])
    gelu = {"weights": weights, "config": str(folder / "plain.json")}
    openai = {"weights": weights, "config": quick}
    heads = {"clip_weights": weights, "config": quick}
    return {
        "hps": gelu,
        "pickscore": gelu,
        "clip:simplear": gelu,
        **{f"clip:{variant}": openai for variant in ("hessel", "torchmetrics", "imagereward")},
        "aesthetic": {"weights": str(folder / "v2.safetensors"), **heads},
        "aesthetic:v1": {"weights": str(folder / "v1.safetensors"), **heads},
    }


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 255, (40 + n, 60, 3), np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_says_what_it_is(name) -> None:
    for variant, facts in discover.load("scorers", name).variants.items():
        assert facts.unit, variant
        assert facts.licence, variant
        assert facts.needs_prompt == (name != "aesthetic")
        assert facts.weights
        assert set(facts.weights) <= WEIGHTS.keys()


def test_all_together_score_and_share(options, pictures, monkeypatch) -> None:
    """Eight scorers, three networks by activation and file; each encodes a picture once a transform."""
    encoded = []
    encode = ClipNetwork.encode_pixels
    monkeypatch.setattr(
        ClipNetwork, "encode_pixels", lambda self, x: encoded.append((id(self), len(x))) or encode(self, x)
    )
    with ScorerSet(list(options), options=options) as scorers:
        scored = list(scorers.score(pictures, ["a cat", LONG, "a dog"]))
        held = {id(scorer.network) for scorer in scorers.scorers.values()}
    assert [item.errors for item in scored] == [{}, {}, {}]
    assert len(held) == 2  # plain GELU, and QuickGELU
    # hps, pickscore, simplear; one for hessel, imagereward and both heads; and torchmetrics
    assert encoded == [(n, 3) for n, _ in encoded]
    assert len(encoded) == 5
    assert scored[1].truncated == [name for name in options if "aesthetic" not in name]
    assert scored[0].truncated == scored[2].truncated == []
    for item in scored:
        assert item.scores.keys() == options.keys()
        assert item.more.keys() == {"clip:hessel", "clip:torchmetrics"}
        for name, scorer in scorers.scorers.items():
            low, high = scorer.facts.low, scorer.facts.high
            assert low is None or low <= item.scores[name] <= high


def test_a_score_depends_on_nothing_but_picture_and_prompt(options, pictures) -> None:
    prompts = ["a cat", "a dog", LONG]
    with ScorerSet(list(options), options=options) as scorers:
        together = list(scorers.score(pictures, prompts))
        for picture, prompt, item in zip(pictures, prompts, together, strict=True):
            (alone,) = scorers.score([picture], [prompt])
            assert alone.scores == pytest.approx(item.scores, abs=1e-4)


def test_no_pictures_are_no_scores(options) -> None:
    with ScorerSet(list(options), options=options) as scorers:
        assert [list(scorer.score([], [])) for scorer in scorers.scorers.values()] == [[]] * len(options)


def test_one_bad_picture_is_its_own_error(options, pictures) -> None:
    """HPS shrinks the longest side, so that it takes what the others would enlarge without end."""
    narrow = Picture.from_pixels(np.tile(np.arange(70_000)[None, :, None], (1, 1, 3)).astype(np.uint8))
    names = ["clip:imagereward", "aesthetic", "hps"]
    with ScorerSet(names, options={name: options[name] for name in names}) as scorers:
        fine, found = scorers.score([pictures[0], narrow], ["a cat", "a cat"])
        assert fine.errors == {}
        assert set(found.errors) == {"clip:imagereward", "aesthetic"}
        for scorer in list(scorers.scorers.values())[:2]:
            good, bad = scorer.score([Picture.open(pictures[0]), narrow], ["a cat", "a cat"])
            assert good.error is None
            assert bad.value is None
            assert "70000x1 pixels: too narrow" in bad.error


def test_the_version_names_all_that_changes_numbers(options, tmp_path, tiny_clip) -> None:
    hps, clip, aesthetic = (discover.load("scorers", name) for name in ("hps", "clip", "aesthetic"))
    plain = options["hps"]
    versions = [
        hps(**plain).version,
        hps("v2.0", **plain).version,
        hps(resize="aliased", **plain).version,
        hps(dtype="bfloat16", **plain).version,
        hps(**{**plain, "config": str(tiny_clip["config"])}).version,
        clip("hessel", **plain).version,
        clip("simplear", **plain).version,
        clip("simplear", decoder_dtype="bfloat16", **plain).version,
        clip("simplear", prefix="", **plain).version,
        clip("vit-h", **plain).version,
        clip("torchmetrics", **plain).version,
        clip("torchmetrics", processor="torchvision", **plain).version,
        aesthetic(**options["aesthetic"]).version,
        aesthetic(normalization="float16", **options["aesthetic"]).version,
        aesthetic("v1", **options["aesthetic:v1"]).version,
    ]
    assert "antialias" in versions[0]
    assert "aliased" in versions[2]
    state = load_file(plain["weights"])
    state["logit_scale"] = state["logit_scale"] + 1
    save_file(state, tmp_path / "tuned.safetensors")
    versions.append(hps(**{**plain, "weights": str(tmp_path / "tuned.safetensors")}).version)
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("hps", {"resize": "bicubic"}, "resize 'bicubic' of scorer 'hps': 'antialias' or 'aliased'"),
        ("hps", {"variant": "v2"}, "variant 'v2' of scorer 'hps': 'v2.1' or 'v2.0'"),
        ("hps", {"dtype": "int8"}, "dtype 'int8' of scorer 'hps'"),
        ("hps", {"weights": "absent.pt"}, "no CLIP weights absent.pt"),
        ("hps", {"config": "absent.json"}, "no CLIP configuration absent.json"),
        ("clip", {"processor": "pillow"}, "variant 'hessel', has no option 'processor'"),
        ("clip", {"variant": "torchmetrics", "processor": "fast"}, "'pillow' or 'torchvision'"),
        ("clip", {"variant": "simplear", "prefix": 3}, "must be a text"),
        ("clip", {"variant": "laion"}, "'hessel' or 'torchmetrics'"),
        ("aesthetic", {"weights": "absent.pth"}, "no file absent.pth"),
        ("aesthetic", {"variant": "v1", "normalization": "float16"}, "normalization 'float16'"),
        ("pickscore", {"variant": "v2"}, "variant 'v2' of scorer 'pickscore'"),
    ],
)
def test_wrong_options_are_named(options, name, chosen, message) -> None:
    own = options["clip:hessel" if name == "clip" else name]
    with pytest.raises(BadInput, match=message.replace(".", r"\.")):
        discover.load("scorers", name)(**{**own, **chosen})


def test_vit_h_is_open_clips_own_cosine(options, pictures) -> None:
    """Its transform, tokenizer and network, on prompts that `simplear` would shorten."""
    import open_clip
    from open_clip.transform import image_transform

    prompts, own = ["two dogs", "a bento", "2 < 3"], options["clip:simplear"]
    network = open_clip.CLIP(**json.loads((Path(own["config"])).read_text())).eval()
    network.load_state_dict(load_file(own["weights"]))
    transform = image_transform(32, is_train=False)
    pixels = torch.stack([transform(Image.open(path)) for path in pictures])
    with torch.no_grad():
        images = network.encode_image(pixels, normalize=True)
        texts = network.encode_text(open_clip.SimpleTokenizer()(prompts), normalize=True)
    with ScorerSet(["clip:vit-h"], options={"clip:vit-h": own}) as scorers:
        scored = [item.scores["clip:vit-h"] for item in scorers.score(pictures, prompts)]
    assert scored == pytest.approx((images * texts).sum(1).tolist(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_it_says_how_to_get_them(name, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=r"sar-eval fetch scorers"):
        discover.load("scorers", name)()


def test_an_unknown_architecture_is_named_at_the_start(options) -> None:
    with pytest.raises(BadInput, match="open_clip has no model 'ViT-X'"):
        discover.load("scorers", "hps")(**{**options["hps"], "config": "ViT-X"}).__enter__()


@pytest.mark.parametrize(
    ("name", "millions", "heads"),
    [("ViT-H-14", 986, 16), ("ViT-L-14-quickgelu", 428, 16), ("ViT-B-32-quickgelu", 151, 12)],
)
def test_the_published_architectures_are_built_without_memory(name, millions, heads) -> None:
    """ViT-H has heads of 80 numbers; with open_clip's default of 64 the same tensors fit, too."""
    model = build(read_architecture(name), name)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
    assert all(p.is_meta for p in model.parameters())
    assert model.visual.transformer.resblocks[0].attn.num_heads == heads
    assert not model.attn_mask.is_meta


def test_a_preference_is_the_softmax_of_two_scores() -> None:
    for first, second in ((21.3, 20.1), (20.1, 21.3), (20.0, 20.0), (1e6, 0.0), (0.0, 1e6)):
        scores = torch.tensor([first, second], dtype=torch.float64)
        assert preference(first, second) == pytest.approx(scores.softmax(0)[0].item(), abs=1e-12)


@pytest.mark.slow
def test_a_picture_of_8000_pixels_a_side(options) -> None:
    """Grey, so that the file is small; more pixels are refused where it is decoded."""
    levels = np.arange(8000, dtype=np.uint8)
    picture = Picture(Image.fromarray(np.broadcast_to(levels, (8000, 8000)).copy()))
    small = Picture(picture.image.resize((1000, 1000), Image.Resampling.BOX))
    own = {name: options[name] for name in ("hps", "clip:hessel")}
    with ScorerSet([*own, "colourfulness"], options=own) as scorers:
        large, other = scorers.score([picture, small], ["a cat", "a cat"])
    assert large.errors == other.errors == {}
    assert large.scores["colourfulness"] == 0
    assert large.scores["hps"] == pytest.approx(other.scores["hps"], abs=0.01)


DYING = """
import torch
from tests.counting_scorers import Mean

class Dying(Mean):
    def score(self, pictures, prompts):
        raise torch.AcceleratorError("CUDA error: {why}\\nfurther lines")
"""


def test_a_card_that_fails_is_no_fault_of_a_picture(tmp_path):
    """One that is only full is: the pictures are then tried one by one."""
    for why in ("an illegal memory access was encountered", "out of memory"):
        (tmp_path / f"{why[:3]}.py").write_text(DYING.replace("{why}", why))
    pixels = np.zeros((2, 2, 3), np.uint8)
    with ScorerSet([f"{tmp_path}/out.py:Dying"]) as scorers:
        assert "out of memory" in next(scorers.score([pixels], [""])).errors["out"]
    with (
        ScorerSet([f"{tmp_path}/an .py:Dying"]) as scorers,
        pytest.raises(DeviceLost, match=r"illegal memory access was encountered$"),
    ):
        next(scorers.score([pixels], [""]))
