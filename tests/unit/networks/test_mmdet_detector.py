"""The mmdet detector with a fake mmdet (the real one is not installed in tests)."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from sar_eval.errors import BadInput, MissingExtra
from sar_eval.networks.mask2former.mmdet_detector import CONFIG, MmdetDetector


class FakeInstances:
    """As mmengine's InstanceData: arrays by name."""

    labels = np.array([3, 5, 7])
    scores = np.array([0.2, 0.9, 0.4])
    bboxes = np.array([[0, 0, 1, 1], [1, 2, 3, 4], [0, 1, 2, 2]], np.float32)
    masks = np.ones((3, 4, 5), np.uint8)

    def cpu(self):
        return self

    def numpy(self):
        return self


@pytest.fixture
def mmdet(monkeypatch, tmp_path):
    """An `mmdet` that records the image it gets as `apis.image`."""
    module, apis = types.ModuleType("mmdet"), types.ModuleType("mmdet.apis")
    module.__file__ = str(tmp_path / "mmdet" / "__init__.py")
    config = tmp_path / "mmdet" / CONFIG
    config.parent.mkdir(parents=True)
    config.touch()
    model = torch.nn.Module()
    model.register_buffer("transformer_decoder", torch.zeros(1))
    apis.init_detector = lambda path, checkpoint, device: model
    apis.inference_detector = lambda model, image: (
        setattr(apis, "image", image),
        types.SimpleNamespace(pred_instances=FakeInstances()),
    )[1]
    monkeypatch.setitem(sys.modules, "mmdet", module)
    monkeypatch.setitem(sys.modules, "mmdet.apis", apis)
    torch.save({"state_dict": {"transformer_decoder": torch.ones(1)}}, tmp_path / "weights.pth")
    return types.SimpleNamespace(apis=apis, model=model, weights=tmp_path / "weights.pth", config=config)


def test_the_image_is_bgr_and_instances_are_best_first(mmdet) -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    image[..., 0] = 200
    instances = MmdetDetector(mmdet.weights).detect([image], 0.3)[0]
    assert (mmdet.apis.image[..., 2] == 200).all()
    assert (mmdet.apis.image[..., 0] == 0).all()
    assert [(i.label, round(i.score, 1)) for i in instances] == [(5, 0.9), (7, 0.4)]
    assert instances[0].box == (1, 2, 3, 4)
    assert instances[0].mask.dtype == bool
    assert float(mmdet.model.transformer_decoder) == 1


def test_weights_that_do_not_fit_are_refused(mmdet, tmp_path: Path) -> None:
    torch.save({"state_dict": {"other": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="does not fit mmdet's model"):
        MmdetDetector(tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="no Mask2Former checkpoint of mmdet"):
        MmdetDetector(tmp_path / "broken.pth")
    mmdet.config.unlink()
    with pytest.raises(BadInput, match="version 3 is needed"):
        MmdetDetector(mmdet.weights)


def test_without_mmdet_the_error_names_the_extra(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mmdet", None)
    with pytest.raises(MissingExtra, match=r"detector 'mmdet' needs: pip install 'sar-eval\[mmdet\]'"):
        MmdetDetector(tmp_path / "weights.pth")
