"""The original detector: Mask2Former as mmdet 3 runs it, where mmdet is installed.

`pip install mmdet mmcv mmengine` fails on current torch; OpenMMLab's maintained builds
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
from sar_eval.networks.mask2former.mmdet_weights import newer_name, read_checkpoint
from sar_eval.networks.mask2former.network import Instance
from sar_eval.types import Box

CONFIG = ".mim/configs/mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py"


class MmdetDetector:
    """The same `detect` as `Mask2Former`'s, through `mmdet.apis`."""

    def __init__(self, weights: Path, *, device: str = "cpu") -> None:
        """Build mmdet's model and load the checkpoint strictly (mmdet's own loading skips what it lacks).

        Raises:
            BadInput: mmdet is too old or without its configurations, or the checkpoint is unreadable
                or does not fit.
            MissingExtra: mmdet is not installed.
        """
        mmdet = need("mmdet", extra="mmdet", what="detector 'mmdet'")
        self.apis = need("mmdet.apis", extra="mmdet", what="detector 'mmdet'")
        config = Path(str(mmdet.__file__)).parent / CONFIG
        if not config.is_file():
            raise BadInput(f"this mmdet has no {config}: version 3 is needed, with its configurations")
        self.model = self.apis.init_detector(str(config), None, device=device)
        state = {newer_name(name): tensor for name, tensor in read_checkpoint(weights).items()}
        try:
            self.model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise BadInput(f"{weights} does not fit mmdet's model: {str(error).splitlines()[0]}") from error

    def detect(self, images: Sequence[NDArray[np.uint8]], least: float = 0.0) -> list[list[Instance]]:
        """Instances of each RGB image [H, W, 3] with a score above `least`, best first."""
        return [self._detect_one(image, least) for image in images]

    def _detect_one(self, image: NDArray[np.uint8], least: float) -> list[Instance]:
        # mmdet takes arrays as OpenCV reads them: blue first.
        told: Any = self.apis.inference_detector(self.model, np.ascontiguousarray(image[..., ::-1]))
        seen = told.pred_instances.cpu().numpy()
        found = [
            Instance(int(label), float(score), _box(box.tolist()), mask.astype(bool))
            for label, score, box, mask in zip(
                seen.labels, seen.scores, seen.bboxes, seen.masks, strict=True
            )
            if score > least
        ]
        return sorted(found, key=lambda instance: -instance.score)


def _box(edges: list[float]) -> Box:
    x0, y0, x1, y1 = edges
    return (x0, y0, x1, y1)
