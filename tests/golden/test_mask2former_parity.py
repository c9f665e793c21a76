"""The detector against mmdet on a tiny checkpoint in mmdet's format (parity data)."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra geneval")
from sar_eval.networks.mask2former.network import Mask2Former, prepare, to_instances
from tests.parity_data import needs

IMAGES = range(4)


def coco_mask(encoded) -> np.ndarray:
    """Compressed COCO run lengths (base 48, six bits a character, differences to two runs before)."""
    runs, place, text = [], 0, encoded["counts"].encode()
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = text[place] - 48
            value |= (bits & 0x1F) << shift
            more, place, shift = bool(bits & 0x20), place + 1, shift + 5
            if not more and bits & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(encoded["size"], order="F")


class Made(dict):
    """Made when first asked for: some images are only in the full data."""

    def __init__(self, make) -> None:
        self.make = make

    def __missing__(self, number):
        return self.setdefault(number, self.make(number))


@pytest.fixture(scope="module")
def folder(parity):
    return parity / "mask2former"


@pytest.fixture(scope="module")
def detector(folder, tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights") / "tiny.pth"
    shutil.copy(folder / "mask2former_tiny_mmdet.pth", weights)
    return Mask2Former(weights)


@pytest.fixture(scope="module")
def images(folder):
    return Made(lambda i: cv2.imread(str(needs(folder / f"image{i}.png")))[..., ::-1].copy())


@pytest.fixture(scope="module")
def logits(detector, images):
    return Made(lambda i: detector.logits([prepare(images[i])]))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("number", IMAGES)
def test_logits(folder, logits, number) -> None:
    from safetensors.torch import load_file

    expected = load_file(folder / "expected_logits.safetensors")
    classes, masks = logits[number]
    assert relative(classes[0], expected[f"image{number}.cls_logits"]) < 1e-4
    if f"image{number}.mask_logits" in expected:
        assert relative(masks[0], expected[f"image{number}.mask_logits"]) < 1e-4


@pytest.mark.parametrize("number", IMAGES)
def test_instances(folder, logits, images, number) -> None:
    classes, masks = logits[number]
    expected = json.loads((folder / "expected_instances.json").read_text())[f"image{number}"]
    found = to_instances(classes[0], masks[0], prepare(images[number]), -1.0)
    assert [instance.label for instance in found] == expected["labels"]
    assert [instance.score for instance in found] == pytest.approx(expected["scores"], abs=1e-4)
    assert np.abs(np.array([i.box for i in found]) - np.array(expected["boxes"])).max() <= 1
    for instance, encoded in zip(found, expected["masks_rle"], strict=True):
        mask = coco_mask(encoded)
        assert mask.shape == instance.mask.shape
        union = (mask | instance.mask).sum()
        assert union == 0 or (mask & instance.mask).sum() / union >= 0.99


@pytest.mark.parametrize("number", IMAGES)
def test_skipping_masks_that_cannot_pass_changes_nothing(logits, images, number) -> None:
    classes, masks = logits[number]
    image = prepare(images[number])
    everything = to_instances(classes[0], masks[0], image, -1.0)
    for least in (0.0, 0.05, 0.1, 0.3, 0.45, 0.6, 0.9):
        few = to_instances(classes[0], masks[0], image, least)
        wanted = [instance for instance in everything if instance.score > least]
        assert [(i.label, i.score, i.box) for i in few] == [(i.label, i.score, i.box) for i in wanted]
        assert all((a.mask == b.mask).all() for a, b in zip(few, wanted, strict=True))


def test_a_image_is_seen_alike_alone_and_in_a_batch(detector, images) -> None:
    square = images[1][:, :200].copy()
    several = [square, images[1], square, images[2], square[:, ::-1].copy()]
    together = detector.detect(several, 0.2)
    for image, found in zip(several, together, strict=True):
        alone = detector.detect([image], 0.2)[0]
        assert [i.label for i in found] == [i.label for i in alone]
        assert [i.score for i in found] == pytest.approx([i.score for i in alone], abs=1e-4)
        assert [i.score for i in found] == sorted((i.score for i in found), reverse=True)


def test_the_converted_file_is_used_and_gives_the_same(detector, images, tmp_path, folder) -> None:
    weights = tmp_path / "tiny.pth"
    shutil.copy(folder / "mask2former_tiny_mmdet.pth", weights)
    Mask2Former(weights)
    converted = tmp_path / "tiny.pth.safetensors"
    stamp = converted.stat().st_mtime_ns
    again = Mask2Former(weights)
    assert converted.stat().st_mtime_ns == stamp
    image = prepare(images[2])
    for one, other in zip(detector.logits([image]), again.logits([image]), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(Mask2Former(converted).logits([image])[0], again.logits([image])[0])


def older_name(name: str) -> str:
    """A tensor's name in mmdet 2, given that of mmdet 3."""
    if "pixel_decoder.encoder" in name:
        return name.replace(".self_attn.", ".attentions.0.").replace(".ffn.", ".ffns.0.")
    if "transformer_decoder.layers" in name:
        name = name.replace(".cross_attn.", ".attentions.0.").replace(".self_attn.", ".attentions.1.")
        return name.replace(".ffn.", ".ffns.0.")
    return name


def test_mmdet_2s_names_are_read_too(detector, folder, images, tmp_path) -> None:
    """The file that GenEval's script downloads has the older names of the transformer layers."""
    state = torch.load(folder / "mask2former_tiny_mmdet.pth", weights_only=True)["state_dict"]
    older = {older_name(name): tensor for name, tensor in state.items()}
    assert set(older) != set(state)
    torch.save({"meta": {}, "state_dict": older}, tmp_path / "older.pth")
    image = prepare(images[2])
    again = Mask2Former(tmp_path / "older.pth").logits([image])
    assert torch.equal(again[0], detector.logits([image])[0])


def test_red_and_blue_do_not_trade_places(detector, images) -> None:
    """The same image with two channels exchanged must look otherwise to the network."""
    own, _ = detector.logits([prepare(images[1])])
    other, _ = detector.logits([prepare(images[1][..., ::-1].copy())])
    assert relative(other, own) > 0.1
