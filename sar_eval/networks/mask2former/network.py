"""Mask2Former in transformers, with mmdet's own preprocessing and instance postprocessing.

Reimplements what mmdet 3 does for one image (`inference_detector`, configuration
mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco): load as BGR, resize with OpenCV keeping the aspect
ratio so that it fits (1333, 800), normalise as RGB, pad with zeros to a multiple of 32; take the 100
best of queries x classes, scale mask logits to the padded input, crop the padding, scale to the image,
threshold at 0; score = class score x mean sigmoid inside the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sar_eval.discover import need
from sar_eval.errors import BadInput
from sar_eval.networks.mask2former.mmdet_weights import read_weights
from sar_eval.tensors.converted import State
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.types import Box

Pixels = NDArray[np.uint8]
LONG_SIDE, SHORT_SIDE, DIVISOR = 1333, 800, 32
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB
MAX_INSTANCES = 100  # of an image
# Parameters of transformers' model that inference does not use: the last norm of a Swin classifier, and
# those of the training loss.
UNUSED = ("model.pixel_level_module.encoder.swin.layernorm.", "criterion.")


@dataclass(frozen=True, slots=True)
class Instance:
    """One detected object.

    Attributes:
        label: class index, from 0.
        score: 0 to 1.
        box: x0, y0, x1, y1 around the mask, in pixels of the image.
        mask: `[H, W]` of the image.
    """

    label: int
    score: float
    box: Box
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A preprocessed image.

    Attributes:
        pixels: `[3, h, w]`, resized, normalised and padded.
        resized: (height, width) before the padding.
        size: (height, width) of the image.
    """

    pixels: Tensor
    resized: tuple[int, int]
    size: tuple[int, int]


def prepare(image: Pixels) -> Prepared:
    """Resize, normalise and pad one RGB image uint8 `[H, W, 3]` as mmdet does.

    Raises:
        BadInput: another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise BadInput(f"the detector needs RGB uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    scale = min(LONG_SIDE / max(height, width), SHORT_SIDE / min(height, width))
    # At least one row and one column; mmcv raises an error for an image so thin.
    new = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    # In float: rounding the resized image to whole levels moves logits by more than a tenth.
    resized = cv2.resize(image.astype(np.float32), new[::-1], interpolation=cv2.INTER_LINEAR)
    pixels = torch.from_numpy(resized).permute(2, 0, 1)
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    padding = (0, -new[1] % DIVISOR, 0, -new[0] % DIVISOR)
    return Prepared(F.pad(pixels, padding), new, (height, width))


def build(state: State, config: dict[str, Any]) -> Any:
    """transformers' model with these weights, loaded strictly.

    Raises:
        BadInput: a tensor is missing, unexpected or of another shape.
    """
    transformers = need("transformers", extra="geneval", what="judge 'geneval'")
    backbone = transformers.SwinConfig(**config["backbone_config"])
    model_config = transformers.Mask2FormerConfig(**{**config, "backbone_config": backbone})
    model = transformers.Mask2FormerForUniversalSegmentation(model_config)
    used = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(UNUSED)}
    check_fit(state, used)
    model.load_state_dict(state, strict=False)
    return model


def check_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise BadInput unless both have the same names with the same shapes."""
    if mismatch := describe_mismatch(state, expected):
        raise BadInput(f"the detector's weights do not fit Mask2Former: {mismatch}")


def autocast_forward(module: Any, device: str, dtype: torch.dtype) -> None:
    """Run a module's forward under autocast to `dtype`; weights and outputs stay float32.

    `model.to(dtype)` would also compute positions in bfloat16, wrong by up to half a cell (NaN on a CPU),
    and would round the masked attention's `sigmoid(x) < 0.5`, so that queries attend to regions with small
    negative logits.
    """
    float32_forward = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            output = float32_forward(*args, **kwargs)
        return type(output)(**{name: _to_float32(value) for name, value in output.items()})

    module.forward = forward


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else tuple(tensor.float() for tensor in value)


class Mask2Former:
    """The detector with loaded weights.

    Attributes:
        digest: SHA-256 of mmdet's file, also when its conversion was loaded.
    """

    def __init__(self, weights: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        """Load mmdet's checkpoint (`.pth`, converted once) or a converted one (`.safetensors`).

        Args:
            weights: the file.
            device: torch device.
            dtype: of backbone and pixel decoder (see `autocast_forward`).

        Raises:
            BadInput: the file is unreadable or does not fit.
        """
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        state, config, self.digest = read_weights(weights)
        self.model = build(state, config).eval().to(self.device)
        if self.dtype != torch.float32:
            autocast_forward(self.model.model.pixel_level_module, self.device.type, self.dtype)

    def detect(self, images: Sequence[Pixels], min_score: float = 0.0) -> list[list[Instance]]:
        """Instances of each RGB image uint8 `[H, W, 3]` with a score above `min_score`, best first.

        An image's result does not depend on the others: only images of the same padded size share a
        batch (mmdet would pad a mixed batch to its largest, which changes the network's input).

        Raises:
            BadInput: an array that is no RGB image, or logits that are not finite.
        """
        prepared = [prepare(image) for image in images]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(prepared):
            by_size.setdefault(tuple(image.pixels.shape), []).append(index)
        results: list[list[Instance]] = [[] for _ in images]
        for indices in by_size.values():
            classes, masks = self.logits([prepared[index] for index in indices])
            self._check_finite(classes, masks)
            for index, class_logits, mask_logits in zip(indices, classes, masks, strict=True):
                instances = to_instances(class_logits, mask_logits, prepared[index], min_score)
                results[index] = sorted(instances, key=lambda instance: -instance.score)
        return results

    def _check_finite(self, classes: Tensor, masks: Tensor) -> None:
        if not (classes.isfinite().all() and masks.isfinite().all()):
            dtype = str(self.dtype).removeprefix("torch.")
            raise BadInput(
                f"the detector's output is NaN or infinity on {self.device} in {dtype}: "
                "use dtype float32, and check the device with `sar-eval doctor`"
            )

    @torch.inference_mode()
    def logits(self, images: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        """Class logits `[B, Q, classes + 1]` and mask logits `[B, Q, h / 4, w / 4]`, float32."""
        pixels = torch.stack([image.pixels for image in images]).to(self.device)
        output = self.model(pixel_values=pixels, output_auxiliary_logits=False)
        return output.class_queries_logits, output.masks_queries_logits


@torch.inference_mode()
def to_instances(
    class_logits: Tensor, mask_logits: Tensor, image: Prepared, min_score: float = 0.0
) -> list[Instance]:
    """mmdet's instance postprocessing of one image, in mmdet's order; scores above `min_score` only.

    The mask's factor of a score is a mean of sigmoids, at most 1, so instances whose class score is not
    above `min_score` are dropped before their masks are resized.

    Args:
        class_logits: `[Q, classes + 1]`, the last one is "no object".
        mask_logits: `[Q, h / 4, w / 4]`.
        image: the preprocessed image.
        min_score: exclusive lower bound of the final score.
    """
    class_scores = class_logits.softmax(-1)[:, :-1]
    top, indices = class_scores.flatten().topk(min(MAX_INSTANCES, class_scores.numel()), sorted=False)
    indices = indices[top > min_score]
    queries, labels = indices // class_scores.shape[1], indices % class_scores.shape[1]
    used_queries, mask_of = queries.unique(return_inverse=True)
    masks, mask_scores = _resize_masks(mask_logits[used_queries], image)
    scores = (class_scores[queries, labels] * mask_scores[mask_of]).tolist()
    boxes = [_mask_box(mask) for mask in masks]
    return [
        Instance(label, score, boxes[number], masks[number])
        for label, score, number in zip(labels.tolist(), scores, mask_of.tolist(), strict=True)
        if score > min_score
    ]


def _resize_masks(logits: Tensor, image: Prepared) -> tuple[list[NDArray[np.bool_]], Tensor]:
    """Masks `[H, W]` of the image's size, and the mean sigmoid inside each `[N]`.

    One at a time: the rounding of a sum depends on the batch size, and a score must not depend on
    which other masks were resized.
    """
    masks, mask_scores = [], [logits.new_zeros(0)]
    for mask_logits in logits[:, None, None]:
        padded = F.interpolate(
            mask_logits, size=image.pixels.shape[-2:], mode="bilinear", align_corners=False
        )
        cropped = padded[..., : image.resized[0], : image.resized[1]]
        full = F.interpolate(cropped, size=image.size, mode="bilinear", align_corners=False)[0, 0]
        inside = full > 0
        mask_scores.append(((full.sigmoid() * inside).sum() / (inside.sum() + 1e-6)).view(1))
        masks.append(inside.cpu().numpy())
    return masks, torch.cat(mask_scores)


def _mask_box(mask: NDArray[np.bool_]) -> Box:
    """The box of a mask `[H, W]`, far edges exclusive; zeros for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if len(columns) == 0:
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
