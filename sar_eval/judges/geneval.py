"""GenEval's own judge: Mask2Former detects objects, CLIP names their colours, GenEval's rules decide.

The same steps as `evaluation/evaluate_images.py` in https://github.com/djghosh13/geneval:
Mask2Former Swin-S trained on COCO, OpenAI's ViT-L/14, a crop of each box with everything outside
the mask painted #999. Weights: `sar-eval fetch geneval`, or the options `weights` and
`clip_weights`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.errors import BadInput, Incomplete
from sar_eval.images.files import DECODING_THREADS, read_image
from sar_eval.images.masks import encode_mask
from sar_eval.options import check_dtype, check_whole_number
from sar_eval.suites.geneval.verdict import (
    Ruling,
    Thresholds,
    decide_verdict,
    filter_detections,
    read_thresholds,
)
from sar_eval.suites.geneval.vocabulary import CLASSES, COLORS
from sar_eval.tensors.digests import file_digest
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Detection, Generation, Json, Prompt, Verdict

if TYPE_CHECKING:
    from sar_eval.networks.clip.colors import ColorClassifier
    from sar_eval.networks.mask2former.network import Instance

VERSION = "1"
LABEL = "judge 'geneval'"  # in error messages
BACKGROUND = "#999"  # of a crop, outside its object's mask
Pixels = NDArray[np.uint8]


class Detector(Protocol):
    """An instance segmentation network."""

    def detect(self, images: Sequence[Pixels], min_score: float) -> list[list[Instance]]:
        """Instances of each RGB image with a score above `min_score`, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """The networks; `Thresholds` has the other options.

    Attributes:
        detector: "mask2former" (ours, on transformers) or "mmdet" (the original, if installed).
        weights: the detector's checkpoint; "" for the fetched one.
        clip: CLIP's architecture, a name in open_clip or a .json file.
        clip_weights: its weights; "" for the fetched ones.
        dtype: of both networks; use float32 for figures to publish.
        batch_size: images of one forward pass of the detector.
        self_test: on a GPU, compare the detector with the CPU before anything is judged.
    """

    detector: str = "mask2former"
    weights: str = ""
    clip: str = "ViT-L-14-quickgelu"
    clip_weights: str = ""
    dtype: str = "float32"
    batch_size: int = 8
    self_test: bool = True


@dataclass(slots=True)
class _Sample:
    """An image with what is known about it so far."""

    prompt: Prompt
    generation: Generation
    pixels: Pixels | None = None
    error: str | None = None
    instances: Sequence[Instance] = ()
    detections: list[Detection] = field(default_factory=list)


class GenEvalJudge:
    """GenEval's verdict with the official networks."""

    classes = CLASSES
    path_options = ("weights", "clip_weights")  # the version has a digest of both files
    speed_options = ("self_test",)  # no verdict depends on it
    # GFLOP: Mask2Former's paper (arXiv 2112.01527) has 313e9 multiplications for Swin-S on COCO's pictures;
    # a square picture has three quarters of their pixels, and CLIP sees a box or two.
    cost = 700.0

    def __init__(self, *, device: str = "cpu", **options: Any) -> None:
        """Check the options and find the weights, which are loaded on enter.

        Args:
            device: torch device of both networks.
            options: fields of `Options` and of `Thresholds`.

        Raises:
            BadInput: an unknown option, a value out of range, or missing weights.
        """
        network = {
            name: options.pop(name) for name in list(options) if name in Options.__dataclass_fields__
        }
        self.thresholds = read_thresholds(options, "geneval")
        self.options, self.device = _validate(Options(**network)), device
        self.weights = _weights_path(self.options.weights, "mask2former")
        self.clip_weights = _weights_path(self.options.clip_weights, "clip")
        self.version = f"{VERSION}+{file_digest(self.weights)[:8]}+{file_digest(self.clip_weights)[:8]}"

    def __enter__(self) -> Self:
        from sar_eval.networks.clip.colors import ColorClassifier

        if self.options.self_test and self.device != "cpu" and self.options.detector == "mask2former":
            self._compare_with_cpu()
        self._detector = self._load_detector()
        self._classifier: ColorClassifier = ColorClassifier(
            COLORS, self.clip_weights, model=self.options.clip, device=self.device, dtype=self.options.dtype
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._classifier.close()
        del self._detector, self._classifier

    def _compare_with_cpu(self) -> None:
        """Refuse a card that detects otherwise than the CPU: some run without an error and see less."""
        from sar_eval.networks.mask2former.self_test import TOLERANCE, compare_devices

        found = compare_devices(self.weights, self.device)
        if not found.ok:
            difference = max(found.classes, found.masks)
            raise Incomplete(
                f"the detector on {self.device} differs from the CPU by {difference:.1e} of the greatest "
                f"logit, allowed is {TOLERANCE}: nothing was judged. Judge on the CPU "
                "(--devices cpu), with another torch build or on another card, or pass over this with "
                "--judge-option self_test=false"
            )

    def _load_detector(self) -> Detector:
        if self.options.detector == "mmdet":
            from sar_eval.networks.mask2former.mmdet_detector import MmdetDetector

            return MmdetDetector(self.weights, device=self.device)
        from sar_eval.networks.mask2former.network import Mask2Former

        return Mask2Former(self.weights, device=self.device, dtype=self.options.dtype)

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; an unreadable or blank one gets an error instead of a score."""
        samples = [_Sample(prompt, generation) for prompt, generation in items]
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            decoded = pool.map(_load_pixels, samples)
            for start in range(0, len(samples), self.options.batch_size):
                batch = samples[start : start + self.options.batch_size]
                for sample in batch:
                    sample.pixels, sample.error = next(decoded)
                self._detect([sample for sample in batch if sample.pixels is not None])
        self._classify_colors([sample for sample in samples if sample.pixels is not None])
        yield from (self._verdict(sample) for sample in samples)

    def _detect(self, samples: Sequence[_Sample]) -> None:
        min_score = min(self.thresholds.threshold, self.thresholds.counting_threshold)
        images = [sample.pixels for sample in samples if sample.pixels is not None]
        for sample, instances in zip(samples, self._detector.detect(images, min_score), strict=True):
            sample.instances = instances
            sample.detections = [Detection(CLASSES[i.label], i.box, i.score) for i in instances]

    def _classify_colors(self, samples: Sequence[_Sample]) -> None:
        """Set the colour of every box whose colour the verdict depends on, over all samples at once."""
        boxes = [(sample, i) for sample in samples for i in colored_boxes(sample, self.thresholds)]
        crops = [
            crop(sample.pixels, sample.instances[i]) for sample, i in boxes if sample.pixels is not None
        ]
        names = [sample.detections[i].name for sample, i in boxes]
        for (sample, i), colors in zip(boxes, self._classifier.classify(crops, names), strict=True):
            best = max(colors, key=colors.__getitem__)
            rounded = {color: round(p, 4) for color, p in colors.items()}
            sample.detections[i] = replace(sample.detections[i], color=best, colors=rounded)

    def _verdict(self, sample: _Sample) -> Verdict:
        if sample.error is not None:
            return Verdict(sample.generation.key, "geneval", self.version, error=sample.error)
        ruling = decide_verdict(sample.prompt.checks, sample.detections, self.thresholds)
        return Verdict(
            sample.generation.key,
            "geneval",
            self.version,
            score=float(ruling.correct),
            passed=ruling.correct,
            reason=ruling.reason,
            evidence=_evidence(ruling, sample),
        )


def colored_boxes(sample: _Sample, thresholds: Thresholds) -> list[int]:
    """Indices of the detections whose colour GenEval checks: the best `count` boxes of a class."""
    checks = sample.prompt.checks
    kept = filter_detections(sample.detections, checks.get("tag") == "counting", thresholds)
    colored = [item for item in checks["include"] if "color" in item]
    counted = [item for item in colored if len(kept.get(item["class"], ())) >= item["count"]]
    boxes = {id(box) for item in counted for box in kept[item["class"]][: item["count"]]}
    return [i for i, detection in enumerate(sample.detections) if id(detection) in boxes]


def crop(pixels: Pixels, instance: Instance) -> Image.Image:
    """The object's box in grey #999 outside its mask."""
    x0, y0, x1, y1 = (round(edge) for edge in instance.box)
    image = Image.fromarray(pixels[y0:y1, x0:x1])
    mask = Image.fromarray(instance.mask[y0:y1, x0:x1])
    return Image.composite(image, Image.new("RGB", image.size, BACKGROUND), mask)


def _load_pixels(sample: _Sample) -> tuple[Pixels | None, str | None]:
    """The pixels, or an error."""
    checks = sample.prompt.checks
    if not isinstance(checks, dict) or "include" not in checks:
        return None, f"prompt {sample.prompt.id!r} has no GenEval checks (include)"
    try:
        return read_image(sample.generation), None
    except BadInput as error:
        return None, str(error)


def _evidence(ruling: Ruling, sample: _Sample) -> Json:
    """Every kept box with class, score, colours and mask."""
    kept = {id(detection) for boxes in ruling.kept.values() for detection in boxes}
    pairs = zip(sample.detections, sample.instances, strict=True)
    return {"boxes": [asdict(replace(d, mask=encode_mask(i.mask))) for d, i in pairs if id(d) in kept]}


def _validate(options: Options) -> Options:
    if options.detector not in ("mask2former", "mmdet"):
        raise BadInput(f"detector {options.detector!r} of {LABEL} is unknown: mask2former or mmdet")
    check_dtype(options.dtype, LABEL)
    check_whole_number("batch_size", options.batch_size, LABEL)
    if not isinstance(options.self_test, bool):
        raise BadInput(f"self_test {options.self_test!r} of {LABEL}: true or false")
    return options


def _weights_path(path: str, name: str) -> Path:
    if not path:
        return find_weights(name)
    if not Path(path).is_file():
        raise BadInput(f"no file {path} for {LABEL}")
    return Path(path).resolve()


JUDGE = GenEvalJudge
