"""Mask2Former's preprocessing, postprocessing and errors, without reference data."""

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra geneval")
from sar_eval.errors import BadInput
from sar_eval.networks.mask2former import network as mask2former
from sar_eval.networks.mask2former.mmdet_weights import _reorder_patch_merging, infer_config
from sar_eval.networks.mask2former.network import MEAN, STD, Mask2Former, prepare, to_instances


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 0, 255), (0, 255, 0)])
def test_channels_are_normalised_in_rgb_order(color) -> None:
    image = prepare(np.full((40, 60, 3), color, np.uint8))
    for channel in range(3):
        expected = (color[channel] - MEAN[channel]) / STD[channel]
        height, width = image.resized
        assert image.pixels[channel, :height, :width].mean() == pytest.approx(expected, abs=1e-4)
    assert MEAN[0] > MEAN[2]  # RGB


@pytest.mark.parametrize(
    ("size", "resized", "padded"),
    [
        ((1024, 1024), (800, 800), (800, 800)),
        ((200, 320), (800, 1280), (800, 1280)),
        ((143, 97), (1179, 800), (1184, 800)),
        ((100, 400), (333, 1333), (352, 1344)),
        ((1, 1), (800, 800), (800, 800)),
        ((1, 5000), (1, 1333), (32, 1344)),
    ],
)
def test_sizes_follow_mmcv(size, resized, padded) -> None:
    image = prepare(np.zeros((*size, 3), np.uint8))
    assert (image.size, image.resized) == (size, resized)
    assert tuple(image.pixels.shape) == (3, *padded)
    assert (image.pixels[:, resized[0] :] == 0).all()
    assert (image.pixels[:, :, resized[1] :] == 0).all()


def test_patch_merging_is_reordered_to_columns() -> None:
    """mmdet: channel, row, column. transformers: (0, 0), (1, 0), (0, 1), (1, 1), channels inside."""
    names = torch.tensor(
        [100 * c + 10 * row + col for c in range(3) for row in range(2) for col in range(2)]
    )
    expected = [100 * c + 10 * row + col for col in range(2) for row in range(2) for c in range(3)]
    assert _reorder_patch_merging(names[None].float())[0].tolist() == expected


def test_the_official_config_is_inferred_from_the_tensors() -> None:
    """Swin-S at full size, on torch's meta device."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        embed_dim=96,
        depths=[2, 2, 18, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(backbone_config=backbone, num_labels=80)
    with torch.device("meta"):
        model = Mask2FormerForUniversalSegmentation(config)
    inferred = infer_config(model.state_dict())
    for name in ("embed_dim", "depths", "num_heads", "window_size", "out_features"):
        assert list(np.atleast_1d(inferred["backbone_config"][name])) == list(
            np.atleast_1d(getattr(backbone, name))
        )
    for name, value in inferred.items():
        if name != "backbone_config":
            assert value == getattr(config, name), name


def _logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Query 0: class 2 in the upper left quarter; query 1: class 0 on the right; query 2: no object."""
    classes = torch.full((3, 4), -9.0)
    classes[0, 2], classes[1, 0], classes[2, 3] = 9.0, 9.0, 9.0
    masks = torch.full((3, 8, 8), -9.0)
    masks[0, :4, :4] = 9.0
    masks[1, :, 6:] = 9.0
    return classes, masks


def test_far_edges_of_boxes_are_exclusive() -> None:
    image = mask2former.Prepared(torch.zeros(3, 32, 32), (32, 32), (64, 64))
    right, corner = sorted(to_instances(*_logits(), image, 0.3), key=lambda instance: instance.label)
    assert (right.label, corner.label) == (0, 2)
    assert corner.box[:2] == (0, 0)
    assert corner.box[2:] == pytest.approx((32, 32), abs=2)
    assert right.box[2:] == (64, 64)
    assert 0.9 < corner.mask.sum() / (corner.box[2] * corner.box[3]) <= 1  # a round corner
    assert corner.score > 0.9


def test_an_empty_mask_has_score_0() -> None:
    image = mask2former.Prepared(torch.zeros(3, 32, 32), (32, 32), (64, 64))
    classes, masks = _logits()
    instances = to_instances(classes, torch.full_like(masks, -5.0), image, -1.0)
    assert {instance.score for instance in instances} == {0.0}
    assert {instance.box for instance in instances} == {(0.0, 0.0, 0.0, 0.0)}
    assert to_instances(classes, torch.full_like(masks, -5.0), image, 0.0) == []


@pytest.mark.parametrize("seed", range(3))
def test_min_score_only_filters_the_full_result(seed) -> None:
    """At and just below each final and each class score, where rounding could make a difference."""
    torch.manual_seed(seed)
    classes, masks = torch.randn(12, 6) * 3, torch.randn(12, 8, 16) * 2
    masks[:3] -= 3  # little or nothing inside
    masks[3:6] = 40  # the final score equals the class score
    image = mask2former.Prepared(torch.zeros(3, 32, 64), (30, 51), (45, 77))
    full = to_instances(classes, masks, image, -1.0)
    assert len(full) == 60
    scores = {instance.score for instance in full}
    class_scores = set(classes.softmax(-1)[:, :-1].flatten().tolist())
    assert scores & class_scores
    for min_score in sorted(scores | class_scores | {score * (1 - 1e-6) for score in class_scores}):
        actual = to_instances(classes, masks, image, min_score)
        expected = [instance for instance in full if instance.score > min_score]
        assert [(i.label, i.score, i.box) for i in actual] == [(i.label, i.score, i.box) for i in expected]
        assert all((a.mask == b.mask).all() for a, b in zip(actual, expected, strict=True))


def test_masks_with_too_low_class_scores_are_not_resized(monkeypatch) -> None:
    resized = []
    resize_masks = mask2former._resize_masks

    def counted(logits, image):
        resized.append(len(logits))
        return resize_masks(logits, image)

    monkeypatch.setattr(mask2former, "_resize_masks", counted)
    image = mask2former.Prepared(torch.zeros(3, 32, 32), (32, 32), (64, 64))
    to_instances(*_logits(), image, 0.3)
    to_instances(*_logits(), image, -1.0)
    assert resized == [2, 3]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_is_close_to_float32(tiny_detector, dtype) -> None:
    """At this size the whole model in bfloat16 gives NaN on a CPU, and the whole model under autocast
    attends to masked regions (a relative error of 1.3).
    """
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    image = [prepare(cv2.resize(pixels, (160, 120), interpolation=cv2.INTER_CUBIC))]
    expected_logits = Mask2Former(tiny_detector).logits(image)
    actual_logits = Mask2Former(tiny_detector, dtype=dtype).logits(image)
    for actual, expected in zip(actual_logits, expected_logits, strict=True):
        assert actual.dtype == torch.float32
        error = ((actual - expected).square().mean() / expected.square().mean()).sqrt()
        assert 0 < float(error) < 0.1


def test_nan_logits_are_an_error_and_no_empty_result(tiny_detector, monkeypatch) -> None:
    detector = Mask2Former(tiny_detector)
    logits = (torch.full((1, 20, 81), float("nan")), torch.zeros(1, 20, 200, 200))
    monkeypatch.setattr(detector, "logits", lambda images: logits)
    with pytest.raises(BadInput, match="NaN or infinity on cpu in float32"):
        detector.detect([np.zeros((64, 64, 3), np.uint8)])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_an_array_that_is_no_rgb_image_is_refused(image) -> None:
    with pytest.raises(BadInput, match="needs RGB uint8"):
        prepare(image)


def test_files_without_a_detector_are_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="sar-eval fetch geneval"):
        Mask2Former(tmp_path / "absent.pth")
    torch.save({"state_dict": {"backbone.norm0.weight": torch.ones(3)}}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="no Mask2Former checkpoint of mmdet"):
        Mask2Former(tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="no Mask2Former checkpoint of mmdet"):
        Mask2Former(tmp_path / "broken.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="no converted Mask2Former"):
        Mask2Former(tmp_path / "broken.safetensors")


def test_a_mismatch_names_the_tensors() -> None:
    state, expected = {"a": torch.ones(2), "c": torch.ones(1)}, {"a": torch.ones(3), "b": torch.ones(1)}
    with pytest.raises(BadInput, match=r"1 missing \(b.*1 unexpected \(c.*1 of another shape \(a"):
        mask2former.check_fit(state, expected)
