"""The original detector: Mask2Former in mmdet 3, if mmdet is installed.

`pip install mmdet mmcv mmengine` fails with current torch; OpenMMLab's maintained builds
(`onedl-mmdetection`, `onedl-mmcv`, `onedl-mmengine`) do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.networks.mask2former.mmdet_weights import mmdet3_name, read_checkpoint
from sar_eval.networks.mask2former.network import Instance
from sar_eval.types import Box

CONFIG = ".mim/configs/mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py"


class MmdetDetector:
    """The same `detect` as `Mask2Former`'s, through `mmdet.apis`."""

    def __init__(self, weights: Path, *, device: str = "cpu") -> None:
        """Build mmdet's model and load the checkpoint strictly (mmdet's own loading skips missing tensors).

        Raises:
            BadInput: mmdet is too old or lacks its configurations, or the checkpoint is unreadable
                or does not fit.
            MissingExtra: mmdet is not installed.
        """
        mmdet = need("mmdet", extra="mmdet", what="detector 'mmdet'")
        self.apis = need("mmdet.apis", extra="mmdet", what="detector 'mmdet'")
        config = Path(str(mmdet.__file__)).parent / CONFIG
        if not config.is_file():
            raise BadInput(f"this mmdet has no {config}: version 3 is needed, with its configurations")
        self.model = self.apis.init_detector(str(config), None, device=device)
        state = {mmdet3_name(name): tensor for name, tensor in read_checkpoint(weights).items()}
        try:
            self.model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise BadInput(f"{weights} does not fit mmdet's model: {str(error).splitlines()[0]}") from error

    def detect(self, images: Sequence[NDArray[np.uint8]], min_score: float = 0.0) -> list[list[Instance]]:
        """Instances of each RGB image uint8 `[H, W, 3]` with a score above `min_score`, best first."""
        return [self._detect_one(image, min_score) for image in images]

    def _detect_one(self, image: NDArray[np.uint8], min_score: float) -> list[Instance]:
        bgr = np.ascontiguousarray(image[..., ::-1])  # mmdet takes arrays in OpenCV's channel order
        result: Any = self.apis.inference_detector(self.model, bgr)
        output = result.pred_instances.cpu().numpy()
        instances = [
            Instance(int(label), float(score), _box(box.tolist()), mask.astype(bool))
            for label, score, box, mask in zip(
                output.labels, output.scores, output.bboxes, output.masks, strict=True
            )
            if score > min_score
        ]
        return sorted(instances, key=lambda instance: -instance.score)


def _box(edges: list[float]) -> Box:
    x0, y0, x1, y1 = edges
    return (x0, y0, x1, y1)
