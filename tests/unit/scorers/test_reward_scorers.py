"""ImageReward and HPSv3: wrong files are told at the start, an odd picture or prompt is its own error."""

import io
import json
import os
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks.clip.transforms import openai_square
from sar_eval.networks.hpsv3.picture import target_size
from sar_eval.networks.hpsv3.scoring import USUAL_LENGTH, by_length
from sar_eval.networks.hpsv3.text import Request
from sar_eval.scorers.hpsv3 import Hpsv3Scorer
from sar_eval.scorers.imagereward import ImageRewardScorer
from sar_eval.scoring import ScorerSet
from tests.parity_data import needs

pytestmark = pytest.mark.usefixtures("one_thread")
VISION = "blip.visual_encoder."


@pytest.fixture(scope="module")
def reward_folder(parity):
    return needs(parity / "imagereward")


@pytest.fixture(scope="module")
def tensors(reward_folder):
    """The tensors of a tiny ImageReward, by their official names."""
    path = reward_folder / "ImageReward.pt"
    stripped = reward_folder / "ImageReward.safetensors"
    return torch.load(path, weights_only=True) if path.is_file() else load_file(stripped)


@pytest.fixture
def folder(reward_folder, tmp_path):
    """A folder to write other weights into."""
    for name in ("med_config.json", "sizes.json"):
        shutil.copyfile(reward_folder / name, tmp_path / name)
    shutil.copyfile(reward_folder / "bert-base-uncased" / "vocab.txt", tmp_path / "vocab.txt")
    return tmp_path


@pytest.fixture(scope="module")
def hpsv3_folder(parity):
    return needs(parity / "hpsv3")


def load_reward(folder, tensors, name="ImageReward.safetensors"):
    """Write weights, and load them with the scorer."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    with ImageRewardScorer(weights=str(folder / name)):
        pass


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# --- files of ImageReward


def test_official_files_without_the_small_ones_are_told(tmp_path, tensors) -> None:
    with pytest.raises(BadInput, match=r"no .*ImageReward\.pt: `sar-eval fetch scorers imagereward`"):
        ImageRewardScorer(weights=str(tmp_path))
    save_file({"a": torch.zeros(1)}, tmp_path / "ImageReward.pt")
    with pytest.raises(BadInput, match=r"no .*vocab\.txt: `sar-eval fetch scorers imagereward`"):
        ImageRewardScorer(weights=str(tmp_path))


def test_a_torch_file_of_tensors_loads_and_one_with_programs_does_not(folder, tensors) -> None:
    torch.save(tensors, folder / "ImageReward.pt")
    with ImageRewardScorer(weights=str(folder)):
        pass
    torch.save({**tensors, "hook": os.system}, folder / "ImageReward.pt")
    with (
        pytest.raises(BadInput, match=r"is no torch file of tensors alone: it also holds .*system"),
        ImageRewardScorer(weights=str(folder)),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: without(t, "blip.text_encoder.encoder.layer.1.output.dense.bias"),
            r"is no ImageReward: 1 missing \(blip\.text_encoder\.encoder\.layer\.1\.output\.dense\.bias",
        ),
        (lambda t: {**t, "visual.conv1.weight": torch.zeros(2)}, r"1 unexpected \(visual\.conv1\.weight"),
        (
            lambda t: {**t, f"{VISION}blocks.0.norm1.bias": torch.zeros(7)},
            r"1 of another shape \(blip\.visual_encoder\.blocks\.0\.norm1\.bias is \[7\]",
        ),
        (
            lambda t: {name: x for name, x in t.items() if not name.startswith("mlp.")},
            "BLIP without ImageReward's head",
        ),
        (lambda t: {**t, "mlp.layers.7.weight": torch.zeros(2, 4)}, "do not lead from"),
        (
            lambda t: {**t, f"{VISION}blocks.99999999.norm1.bias": torch.zeros(48)},
            r"1 unexpected \(blip\.visual_encoder\.blocks\.99999999\.norm1\.bias",
        ),
        (lambda t: without(t, f"{VISION}pos_embed"), r"it has no tensor 'blip\.visual_encoder\.pos_embed'"),
        (lambda t: {**t, f"{VISION}pos_embed": torch.zeros(1, 0, 48)}, r"not one of 3 dimensions"),
        (lambda t: {"conv.weight": torch.zeros(3)}, r"is no ImageReward: it has no tensor"),
    ],
    ids=[
        "missing",
        "foreign",
        "shape",
        "no head",
        "head",
        "a far layer",
        "no positions",
        "empty",
        "another network",
    ],
)
def test_weights_of_another_network_are_refused(folder, tensors, change, message) -> None:
    with pytest.raises(BadInput, match=message):
        load_reward(folder, change(tensors))


def test_heads_and_vocabulary_that_do_not_fit_are_told(folder, tensors) -> None:
    (folder / "sizes.json").write_text('{"num_heads": 5}')
    with pytest.raises(
        BadInput, match=r"num_heads is 5, which does not divide the width \d+ \(see .*sizes"
    ):
        load_reward(folder, tensors)
    (folder / "sizes.json").write_text('{"num_heads": "many"}')
    with pytest.raises(BadInput, match="num_heads is 'many'"):
        load_reward(folder, tensors)
    (folder / "sizes.json").write_text('{"num_heads": 1}')
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(BadInput, match=r"vocab\.txt and BLIP's two tokens make 7 ids, but"):
        load_reward(folder, tensors)
    (folder / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(BadInput, match=r"has no word '\[PAD\]': it is no vocabulary of bert-base-uncased"):
        load_reward(folder, tensors)


def test_the_version_changes_with_each_file(folder, tensors) -> None:
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "ImageReward.pt")
    versions = {ImageRewardScorer(weights=str(folder)).version}
    low = ImageRewardScorer(weights=str(folder), dtype="bfloat16").version
    assert {low.removesuffix("+bfloat16")} == versions
    (folder / "med_config.json").write_text('{"num_attention_heads": 2}')
    versions.add(ImageRewardScorer(weights=str(folder)).version)
    save_file({"other": torch.zeros(1)}, folder / "ImageReward.pt")
    versions.add(ImageRewardScorer(weights=str(folder)).version)
    assert len(versions) == 3


# --- files of HPSv3


@pytest.fixture
def base(hpsv3_folder, tmp_path):
    """A copy of the base's files, to be changed."""
    return shutil.copytree(hpsv3_folder / "base", tmp_path / "base", copy_function=shutil.copyfile)


def load_hpsv3(weights, base):
    with Hpsv3Scorer(weights=str(weights), base=str(base)):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: without(t, "rm_head.5.bias"),
            r"is no HPSv3 on the base in .*: 1 missing \(rm_head\.5\.b",
        ),
        (
            lambda t: {**t, "model.layers.7.mlp.up_proj.weight": torch.zeros(2)},
            r"1 unexpected \(model\.layers\.7",
        ),
        (
            lambda t: {**t, "model.embed_tokens.weight": torch.zeros(736, 64)},
            r"model\.embed_tokens\.weight is \[736, 64\], the model's is \[691, 64\]",
        ),
    ],
    ids=["missing", "foreign", "the base's padded vocabulary"],
)
def test_weights_of_another_hpsv3_are_refused(hpsv3_folder, base, change, message, tmp_path) -> None:
    content = json.loads((hpsv3_folder / "cases.json").read_text())
    rows, hidden = content["tokenizer_length"], content["base_vocab_size"]
    tensors = change(load_file(hpsv3_folder / "HPSv3.safetensors"))
    path = tmp_path / "HPSv3.safetensors"
    save_file(tensors, path)
    if (rows, hidden) != (691, 736):
        message = "model's is|missing|unexpected"  # other reference data
    with pytest.raises(BadInput, match=message):
        load_hpsv3(path, base)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, r"config\.json is no configuration of Qwen2-VL \(model_type qwen2_vl\)"),
        ({"num_attention_heads": 0}, r"config\.json is no configuration of Qwen2-VL: "),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "config.json is no"),
        ({"vision_config": {"patch_size": 16}}, r"is not of HPSv3's base: 14 pixels a patch"),
    ],
)
def test_a_base_of_another_network_is_refused(hpsv3_folder, base, change, message) -> None:
    path = base / "config.json"
    config = json.loads(path.read_text())
    vision = config["vision_config"] | change.pop("vision_config", {})
    path.write_text(json.dumps({**config, "vision_config": vision, **change}))
    with pytest.raises(BadInput, match=message):
        load_hpsv3(hpsv3_folder / "HPSv3.safetensors", base)


def test_missing_and_unreadable_files_of_the_base_are_told(hpsv3_folder, base) -> None:
    weights = hpsv3_folder / "HPSv3.safetensors"
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"cannot read .*tokenizer\.json"):
        load_hpsv3(weights, base)
    (base / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"no .*tokenizer\.json: `sar-eval fetch scorers hpsv3`"):
        load_hpsv3(weights, base)
    with pytest.raises(BadInput, match=r"no .*HPSv3\.safetensors: `sar-eval fetch scorers hpsv3`"):
        load_hpsv3(base, base)
    with pytest.raises(BadInput, match="pictures_at_once 0"):
        Hpsv3Scorer(weights=str(weights), base=str(base), pictures_at_once=0)


def test_a_body_in_its_stored_dtype_is_not_copied(hpsv3_folder) -> None:
    """The released weights have 16 GB: in bfloat16 they stay mapped from the file on a CPU."""
    path = hpsv3_folder / "HPSv3.safetensors"
    with Hpsv3Scorer(weights=str(path), base=str(hpsv3_folder / "base"), dtype="bfloat16") as scorer:
        body = scorer._network.network.language_model.state_dict()
    original = load_file(path)
    assert all(torch.equal(t, original[f"model.{name}"]) for name, t in body.items())


# --- pictures and prompts


@pytest.fixture
def both(reward_folder, tensors, hpsv3_folder, folder):
    """Both scorers as the judge and Python make them."""
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "tiny.safetensors")
    options = {
        "imagereward": {"weights": str(folder / "tiny.safetensors")},
        "hpsv3": {"weights": str(hpsv3_folder), "base": str(hpsv3_folder / "base")},
    }
    with ScorerSet(["imagereward", "hpsv3"], options=options) as scorers:
        yield scorers


def test_odd_pictures_and_prompts_get_scores_or_their_own_errors(both) -> None:
    good = png(Image.new("RGB", (40, 30), "red"))
    animated = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
    pairs = {
        "grey": (png(Image.new("L", (50, 20), 9)), "a cat"),
        "alpha": (png(Image.new("RGBA", (33, 47), (9, 9, 9, 100))), "a cat"),
        "palette": (png(Image.new("P", (33, 47), 3)), "a cat"),
        "1x1": (png(Image.new("RGB", (1, 1))), "a cat"),
        "long prompt": (good, "a red cat, " * 900),
        "control": (good, "a\0 cat\x07\u200b [SEP] \ud7ff"),
        "strip": (png(Image.new("RGB", (3000, 2))), "a cat"),
        "reserved": (good, "say <|Reward|> please"),
        "picture token": (good, "<|image_pad|>"),
        "empty": (good, " "),
        "animated": (animated.getvalue(), "a cat"),
        "cut off": (good[: len(good) // 2], "a cat"),
        "last": (good, "a cat"),
    }
    pictures, prompts = zip(*pairs.values(), strict=True)
    found = dict(zip(pairs, both.score(pictures, prompts), strict=True))
    for name in ("grey", "alpha", "palette", "1x1", "long prompt", "control", "last"):
        assert set(found[name].scores) == {"imagereward", "hpsv3"}, found[name]
    assert found["long prompt"].truncated == ["imagereward"]
    assert "over 200 times" in found["strip"].errors["hpsv3"]
    assert "too narrow" in found["strip"].errors["imagereward"]
    for name, token in {"reserved": "<|Reward|>", "picture token": "<|image_pad|>"}.items():
        assert token in found[name].errors["hpsv3"]
        assert "imagereward" in found[name].scores
    assert set(found["empty"].errors) == {"imagereward", "hpsv3"}
    assert "" in found["animated"].errors
    assert "" in found["cut off"].errors
    assert found["last"].more["hpsv3"].keys() == {"sigma", "sigma_raw"}


def test_a_request_longer_than_the_base_reads_is_an_error(both, monkeypatch) -> None:
    monkeypatch.setattr(both.scorers["hpsv3"]._network, "longest", 900)
    picture = Picture.from_bytes(png(Image.new("RGB", (40, 30), "red")))
    (found,) = both.scorers["hpsv3"].score([picture], ["a cat"])
    assert "tokens, of at most 900" in str(found.error)


def test_a_picture_may_be_scored_for_several_prompts(both) -> None:
    """It is prepared once; nothing of one prompt reaches another's score."""
    picture = Picture.from_bytes(png(Image.linear_gradient("L")))
    prompts = ["a cat", "a dog", "a cat"]
    for scorer in both.scorers.values():
        first, second, third = scorer.score([picture] * 3, prompts)
        assert first.value == pytest.approx(third.value, abs=1e-6)
        assert first.value != pytest.approx(second.value, abs=1e-6)


def test_scorers_of_a_process_hold_one_copy(reward_folder, folder, tensors) -> None:
    path = folder / "ImageReward.safetensors"
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    with ImageRewardScorer(weights=str(path)) as first, ImageRewardScorer(weights=str(path)) as second:
        assert first._network is second._network
        with ImageRewardScorer(weights=str(path), dtype="bfloat16") as third:
            assert third._network is not first._network


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (768, 420),
        (576, 420),
        (600, 420),
        (1152, 420),
        (1536, 420),
        (1024, 448),
        (512, 448),
        (152, 476),
        (1, 448),
    ],
)
def test_hpsv3_resizes_squares_as_pythons_floats_round(side, expected) -> None:
    assert target_size(side, side) == (expected, expected)


def test_hpsv3_keeps_the_ratio_and_a_picture_of_the_right_size() -> None:
    assert target_size(448, 448) == (448, 448)
    assert target_size(256, 784) == (280, 784)  # as many pixels, but 252 x 784 after rounding
    assert target_size(1000, 9) == (4732, 56)


def test_the_long_side_is_cut_and_the_offset_rounded_half_to_even() -> None:
    """224 * 301 / 200 = 337.12; the offset (337 - 224) / 2 = 56.5 becomes 56."""
    image = Image.linear_gradient("L").resize((301, 200)).transpose(Image.Transpose.ROTATE_90)
    whole = image.resize((224, 337), Image.Resampling.BICUBIC).convert("RGB")
    assert openai_square(image, 224).tobytes() == whole.crop((0, 56, 224, 280)).tobytes()


def test_requests_of_like_length_share_a_batch() -> None:
    requests = [Request(tuple(range(length)), 0) for length in (900, 1101, 800, 5000, 950, 1100)]
    assert list(by_length(requests, 2)) == [[2, 0], [4, 5], [1], [3]]
    assert list(by_length(requests, 9)) == [[2, 0, 4], [5, 1], [3]]
    assert list(by_length([], 2)) == []


def test_a_batch_of_long_requests_has_no_more_tokens_than_one_of_usual_ones() -> None:
    long = [Request(tuple(range(3 * USUAL_LENGTH)), 0)] * 5
    assert list(by_length(long, 7)) == [[0, 1], [2, 3], [4]]
