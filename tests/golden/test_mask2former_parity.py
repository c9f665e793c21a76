"""The detector against mmdet on a tiny checkpoint in mmdet's format (parity data)."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra geneval")
from sar_eval.networks.mask2former.network import Mask2Former, prepare, to_instances
from tests.mmdet_names import mmdet2_name
from tests.parity_data import needs

IMAGES = range(4)


def coco_mask(encoded) -> np.ndarray:
    """Compressed COCO run lengths (base 48, six bits a character, differences to two runs before)."""
    runs, position, text = [], 0, encoded["counts"].encode()
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = text[position] - 48
            value |= (bits & 0x1F) << shift
            more, position, shift = bool(bits & 0x20), position + 1, shift + 5
            if not more and bits & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(encoded["size"], order="F")


class LazyDict(dict):
    """Computes a value at its first use: some images are only in the full data."""

    def __init__(self, compute) -> None:
        self.compute = compute

    def __missing__(self, number):
        return self.setdefault(number, self.compute(number))


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
    return LazyDict(lambda i: cv2.imread(str(needs(folder / f"image{i}.png")))[..., ::-1].copy())


@pytest.fixture(scope="module")
def logits(detector, images):
    return LazyDict(lambda i: detector.logits([prepare(images[i])]))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("number", IMAGES)
def test_logits(folder, logits, number) -> None:
    from safetensors.torch import load_file

    expected = load_file(folder / "expected_logits.safetensors")
    classes, masks = logits[number]
    assert relative_error(classes[0], expected[f"image{number}.cls_logits"]) < 1e-4
    if f"image{number}.mask_logits" in expected:
        assert relative_error(masks[0], expected[f"image{number}.mask_logits"]) < 1e-4


@pytest.mark.parametrize("number", IMAGES)
def test_instances(folder, logits, images, number) -> None:
    classes, masks = logits[number]
    expected = json.loads((folder / "expected_instances.json").read_text())[f"image{number}"]
    instances = to_instances(classes[0], masks[0], prepare(images[number]), -1.0)
    assert [instance.label for instance in instances] == expected["labels"]
    assert [instance.score for instance in instances] == pytest.approx(expected["scores"], abs=1e-4)
    assert np.abs(np.array([i.box for i in instances]) - np.array(expected["boxes"])).max() <= 1
    for instance, encoded in zip(instances, expected["masks_rle"], strict=True):
        mask = coco_mask(encoded)
        assert mask.shape == instance.mask.shape
        union = (mask | instance.mask).sum()
        assert union == 0 or (mask & instance.mask).sum() / union >= 0.99


@pytest.mark.parametrize("number", IMAGES)
def test_min_score_only_filters_the_full_result(logits, images, number) -> None:
    classes, masks = logits[number]
    image = prepare(images[number])
    full = to_instances(classes[0], masks[0], image, -1.0)
    for min_score in (0.0, 0.05, 0.1, 0.3, 0.45, 0.6, 0.9):
        actual = to_instances(classes[0], masks[0], image, min_score)
        expected = [instance for instance in full if instance.score > min_score]
        assert [(i.label, i.score, i.box) for i in actual] == [(i.label, i.score, i.box) for i in expected]
        assert all((a.mask == b.mask).all() for a, b in zip(actual, expected, strict=True))


@pytest.mark.slow
def test_instances_do_not_depend_on_the_batch(detector, images) -> None:
    square = images[1][:, :200].copy()
    batch = [square, images[1], square, images[2], square[:, ::-1].copy()]
    for image, instances in zip(batch, detector.detect(batch, 0.2), strict=True):
        alone = detector.detect([image], 0.2)[0]
        assert [i.label for i in instances] == [i.label for i in alone]
        assert [i.score for i in instances] == pytest.approx([i.score for i in alone], abs=1e-4)
        assert [i.score for i in instances] == sorted((i.score for i in instances), reverse=True)


def test_the_cached_conversion_gives_the_same_logits(detector, images, tmp_path, folder) -> None:
    weights = tmp_path / "tiny.pth"
    shutil.copy(folder / "mask2former_tiny_mmdet.pth", weights)
    Mask2Former(weights)
    converted = tmp_path / "tiny.pth.safetensors"
    mtime = converted.stat().st_mtime_ns
    again = Mask2Former(weights)
    assert converted.stat().st_mtime_ns == mtime
    image = prepare(images[2])
    for expected, actual in zip(detector.logits([image]), again.logits([image]), strict=True):
        assert torch.equal(actual, expected)
    assert torch.equal(Mask2Former(converted).logits([image])[0], again.logits([image])[0])


def test_checkpoints_of_mmdet_2_are_read(detector, folder, images, tmp_path) -> None:
    """The file that GenEval's script downloads has mmdet 2's names of the transformer layers."""
    state = torch.load(folder / "mask2former_tiny_mmdet.pth", weights_only=True)["state_dict"]
    older = {mmdet2_name(name): tensor for name, tensor in state.items()}
    assert set(older) != set(state)
    torch.save({"meta": {}, "state_dict": older}, tmp_path / "older.pth")
    image = prepare(images[2])
    again = Mask2Former(tmp_path / "older.pth").logits([image])
    assert torch.equal(again[0], detector.logits([image])[0])


def test_swapped_channels_change_the_logits(detector, images) -> None:
    """Red and blue must not be interchangeable."""
    original, _ = detector.logits([prepare(images[1])])
    swapped, _ = detector.logits([prepare(images[1][..., ::-1].copy())])
    assert relative_error(swapped, original) > 0.1
