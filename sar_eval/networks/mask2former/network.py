"""Mask2Former on transformers, with mmdet's own preprocessing and instance postprocessing.

What mmdet 3 does for one image (`inference_detector`, configuration
mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco) is written anew here: load as BGR, resize with
OpenCV keeping the ratio so that it fits (1333, 800), normalise as RGB, pad with zeros to a multiple
of 32; take the 100 best of queries x classes, scale mask logits to the padded input, cut the padding
off, scale to the image, cut at 0; score = class score x mean sigmoid inside the mask.
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
from sar_eval.types import Box

Pixels = NDArray[np.uint8]
LONG_SIDE, SHORT_SIDE, DIVISOR = 1333, 800, 32
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB
MOST = 100  # instances of an image
# Parts of transformers' model that no image passes through: the last norm of a Swin classifier,
# and the training loss.
UNUSED = ("model.pixel_level_module.encoder.swin.layernorm.", "criterion.")


@dataclass(frozen=True, slots=True)
class Instance:
    """One found object.

    Attributes:
        label: class, from 0.
        score: 0 to 1.
        box: x0, y0, x1, y1 around the mask, in pixels of the image.
        mask: [H, W] of the image.
    """

    label: int
    score: float
    box: Box
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for the network: `pixels` [3, h, w] padded, `resized` and `size` as (h, w)."""

    pixels: Tensor
    resized: tuple[int, int]
    size: tuple[int, int]


def prepare(image: Pixels) -> Prepared:
    """Resize, normalise and pad one RGB image uint8 [H, W, 3] as mmdet does.

    Raises:
        BadInput: another type or shape; such an image would be judged without a complaint.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise BadInput(f"the detector needs RGB uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    scale = min(LONG_SIDE / max(height, width), SHORT_SIDE / min(height, width))
    # A line thinner than half a pixel keeps one row; mmcv stops there.
    new = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    # In float: rounding the resized image to whole levels moves logits by more than a tenth.
    resized = cv2.resize(image.astype(np.float32), new[::-1], interpolation=cv2.INTER_LINEAR)
    pixels = torch.from_numpy(resized).permute(2, 0, 1)
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    padding = (0, -new[1] % DIVISOR, 0, -new[0] % DIVISOR)
    return Prepared(F.pad(pixels, padding), new, (height, width))


def build(state: State, config: dict[str, Any]) -> Any:
    """transformers' model with these weights and nothing left to chance.

    Raises:
        BadInput: a tensor is missing, surplus or of another shape.
    """
    transformers = need("transformers", extra="geneval", what="judge 'geneval'")
    backbone = transformers.SwinConfig(**config["backbone_config"])
    whole = transformers.Mask2FormerConfig(**{**config, "backbone_config": backbone})
    model = transformers.Mask2FormerForUniversalSegmentation(whole)
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(UNUSED)}
    check_fit(state, own)
    model.load_state_dict(state, strict=False)
    return model


def check_fit(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Same names, same shapes.

    Raises:
        BadInput: naming what differs.
    """
    missing, surplus = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    other = [name for name in expected if name in given and given[name].shape != expected[name].shape]
    if missing or surplus or other:
        told = {"missing": missing, "not the model's": surplus, "of another shape": other}
        faults = "; ".join(
            f"{len(names)} {what} ({names[0]}, ...)" for what, names in told.items() if names
        )
        raise BadInput(f"the detector's weights do not fit Mask2Former: {faults}")


def lower(part: Any, device: str, dtype: torch.dtype) -> None:
    """Let a part of the model multiply in `dtype`; weights and what it answers stay float32.

    Not simply `model.to(dtype)`: transformers would compute positions in bfloat16 too, off by half a
    cell (on a CPU the answer is NaN), and would round `sigmoid(x) < 0.5`, by which a query decides
    where not to look, so that whole regions with small negative logits come into view.
    """
    exact = part.forward

    def forward(*given: Any, **options: Any) -> Any:
        with torch.autocast(device, dtype):
            told = exact(*given, **options)
        return type(told)(**{name: _floats(value) for name, value in told.items()})

    part.forward = forward


def _floats(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else tuple(tensor.float() for tensor in value)


class Mask2Former:
    """The detector with loaded weights.

    Attributes:
        digest: SHA-256 of mmdet's file, the same for a conversion of it.
    """

    def __init__(self, weights: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        """Load mmdet's checkpoint (`.pth`, converted once) or a converted one (`.safetensors`).

        Args:
            weights: the file.
            device: of torch.
            dtype: of the products in the backbone and the pixel decoder, see `lower`.

        Raises:
            BadInput: unreadable, or tensors of another architecture.
        """
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        state, config, self.digest = read_weights(weights)
        self.model = build(state, config).eval().to(self.device)
        if self.dtype != torch.float32:
            lower(self.model.model.pixel_level_module, self.device.type, self.dtype)

    def detect(self, images: Sequence[Pixels], least: float = 0.0) -> list[list[Instance]]:
        """Instances of each RGB image [H, W, 3] with a score above `least`, best first.

        An image's result does not depend on the others: only images that are padded to one size
        share a pass (mmdet would pad a mixed batch to its largest, which changes the network's input).

        Raises:
            BadInput: an image that is none, or an answer that is no number (nothing would be found).
        """
        prepared = [prepare(image) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, one in enumerate(prepared):
            groups.setdefault(tuple(one.pixels.shape), []).append(place)
        found: list[list[Instance]] = [[] for _ in images]
        for places in groups.values():
            classes, masks = self.logits([prepared[place] for place in places])
            if not (classes.isfinite().all() and masks.isfinite().all()):
                kind = str(self.dtype).removeprefix("torch.")
                raise BadInput(
                    f"the detector answers NaN or infinity on {self.device} in {kind}: "
                    "take dtype float32, and ask `sar-eval doctor` about the device"
                )
            for place, class_logits, mask_logits in zip(places, classes, masks, strict=True):
                instances = to_instances(class_logits, mask_logits, prepared[place], least)
                found[place] = sorted(instances, key=lambda instance: -instance.score)
        return found

    @torch.inference_mode()
    def logits(self, images: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        """Class logits `[B, Q, classes + 1]` and mask logits `[B, Q, h / 4, w / 4]`, float32."""
        pixels = torch.stack([image.pixels for image in images]).to(self.device)
        told = self.model(pixel_values=pixels, output_auxiliary_logits=False)
        return told.class_queries_logits, told.masks_queries_logits


@torch.inference_mode()
def to_instances(
    class_logits: Tensor, mask_logits: Tensor, image: Prepared, least: float = 0.0
) -> list[Instance]:
    """mmdet's instance postprocessing of one image, in mmdet's order; scores above `least` only.

    The mask's share of a score is a mean of sigmoids, at most 1, so what a class score cannot lift
    above `least` is dropped before its mask is scaled up.

    Args:
        class_logits: `[Q, classes + 1]`, the last one is "no object".
        mask_logits: `[Q, h / 4, w / 4]`.
        image: what they are for.
        least: bound of the final score.
    """
    scores = class_logits.softmax(-1)[:, :-1]
    best, places = scores.flatten().topk(min(MOST, scores.numel()), sorted=False)
    places = places[best > least]
    queries, labels = places // scores.shape[1], places % scores.shape[1]
    used, rows = queries.unique(return_inverse=True)
    masks, sureness = _masks(mask_logits[used], image)
    finals = (scores[queries, labels] * sureness[rows]).tolist()
    boxes = [_box(mask) for mask in masks]
    return [
        Instance(label, score, boxes[row], masks[row])
        for label, score, row in zip(labels.tolist(), finals, rows.tolist(), strict=True)
        if score > least
    ]


def _masks(logits: Tensor, image: Prepared) -> tuple[list[NDArray[np.bool_]], Tensor]:
    """Masks in the image's own size, and the mean sigmoid inside each `[N]`.

    One by one: a sum's last digit depends on how many rows are summed beside it, and a score must
    not depend on which other masks were scaled up.
    """
    masks, sureness = [], [logits.new_zeros(0)]
    for one in logits[:, None, None]:
        scaled = F.interpolate(one, size=image.pixels.shape[-2:], mode="bilinear", align_corners=False)
        cut = scaled[..., : image.resized[0], : image.resized[1]]
        full = F.interpolate(cut, size=image.size, mode="bilinear", align_corners=False)[0, 0]
        inside = full > 0
        sureness.append(((full.sigmoid() * inside).sum() / (inside.sum() + 1e-6)).view(1))
        masks.append(inside.cpu().numpy())
    return masks, torch.cat(sureness)


def _box(mask: NDArray[np.bool_]) -> Box:
    """Around a mask [H, W], the far edge outside it; zeros for an empty one."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if len(columns) == 0:
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
