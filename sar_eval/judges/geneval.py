"""GenEval's own judge: Mask2Former finds the objects, CLIP names their colours, GenEval rules.

The parts are those of `evaluation/evaluate_images.py` in https://github.com/djghosh13/geneval:
Mask2Former Swin-S trained on COCO, OpenAI's ViT-L/14, a crop of each box with everything outside
the mask painted #999. Weights: `sar-eval fetch geneval`, or the options `weights` and
`clip_weights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images.files import DECODING_THREADS, read_image
from sar_eval.images.masks import encode_mask
from sar_eval.suites.geneval.verdict import (
    Ruling,
    Thresholds,
    decide_verdict,
    filter_detections,
    read_thresholds,
)
from sar_eval.suites.geneval.vocabulary import CLASSES, COLORS
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Detection, Generation, Json, Prompt, Verdict

if TYPE_CHECKING:
    from sar_eval.networks.clip.colors import ColorClassifier
    from sar_eval.networks.mask2former.network import Instance

VERSION = "1"
OUTSIDE = "#999"  # what a crop shows outside its object's mask
Pixels = NDArray[np.uint8]


class Detector(Protocol):
    """What finds objects."""

    def detect(self, images: Sequence[Pixels], least: float) -> list[list[Instance]]:
        """Instances of each RGB image with a score above `least`, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """How images are looked at, beside the thresholds.

    Attributes:
        detector: "mask2former" (ours, on transformers) or "mmdet" (the original, if installed).
        weights: the detector's checkpoint; "" for the fetched one.
        clip: CLIP's architecture, a name of open_clip's or a .json file.
        clip_weights: its weights; "" for the fetched ones.
        dtype: of both networks; float32 is what figures should be published with.
        batch_size: images of one pass of the detector.
    """

    detector: str = "mask2former"
    weights: str = ""
    clip: str = "ViT-L-14-quickgelu"
    clip_weights: str = ""
    dtype: str = "float32"
    batch_size: int = 8


@dataclass(slots=True)
class _Look:
    """An image on its way to a verdict."""

    prompt: Prompt
    generation: Generation
    pixels: Pixels | None = None
    error: str | None = None
    instances: Sequence[Instance] = ()
    detections: list[Detection] = field(default_factory=list)


class GenEvalJudge:
    """GenEval's verdict with the official networks."""

    path_options = ("weights", "clip_weights")  # the version knows the bytes

    def __init__(self, *, device: str = "cpu", **options: Any) -> None:
        """Check options and find the weights; nothing is loaded yet.

        Args:
            device: of torch, for both networks.
            options: fields of `Options` and of `Thresholds`.

        Raises:
            BadInput: an unknown option, a value out of range, or weights that are not there.
        """
        own = {name: options.pop(name) for name in list(options) if name in Options.__dataclass_fields__}
        self.thresholds = read_thresholds(options, "geneval")
        self.options, self.device = _checked(Options(**own)), device
        self.weights = _weights(self.options.weights, "mask2former")
        self.clip_weights = _weights(self.options.clip_weights, "clip")
        self.version = f"{VERSION}+{_digest(self.weights)}+{_digest(self.clip_weights)}"

    def __enter__(self) -> Self:
        from sar_eval.networks.clip.colors import ColorClassifier

        self._detector = self._load_detector()
        self._classifier: ColorClassifier = ColorClassifier(
            COLORS, self.clip_weights, model=self.options.clip, device=self.device, dtype=self.options.dtype
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._detector, self._classifier

    def _load_detector(self) -> Detector:
        if self.options.detector == "mmdet":
            from sar_eval.networks.mask2former.mmdet_detector import MmdetDetector

            return MmdetDetector(self.weights, device=self.device)
        from sar_eval.networks.mask2former.network import Mask2Former

        return Mask2Former(self.weights, device=self.device, dtype=self.options.dtype)

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; an unreadable or blank one gets an error instead of a score."""
        looks = [_Look(prompt, generation) for prompt, generation in items]
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            decoded = pool.map(_pixels, looks)
            for start in range(0, len(looks), self.options.batch_size):
                part = looks[start : start + self.options.batch_size]
                for look in part:
                    look.pixels, look.error = next(decoded)
                self._detect([look for look in part if look.pixels is not None])
        self._name_colors(looks)
        yield from (self._verdict(look) for look in looks)

    def _detect(self, looks: Sequence[_Look]) -> None:
        least = min(self.thresholds.threshold, self.thresholds.counting_threshold)
        images = [look.pixels for look in looks if look.pixels is not None]
        for look, instances in zip(looks, self._detector.detect(images, least), strict=True):
            look.instances = instances
            look.detections = [Detection(CLASSES[i.label], i.box, i.score) for i in instances]

    def _name_colors(self, looks: Sequence[_Look]) -> None:
        """Give a colour to every box whose colour decides something, all crops in one go."""
        seen = [look for look in looks if look.pixels is not None]
        asked = [(look, i) for look in seen for i in colored(look.prompt.checks, look, self.thresholds)]
        crops = [crop(look.pixels, look.instances[i]) for look, i in asked if look.pixels is not None]
        names = [look.detections[i].name for look, i in asked]
        for (look, i), colors in zip(asked, self._classifier.classify(crops, names), strict=True):
            best = max(colors, key=colors.__getitem__)
            rounded = {color: round(p, 4) for color, p in colors.items()}
            look.detections[i] = replace(look.detections[i], color=best, colors=rounded)

    def _verdict(self, look: _Look) -> Verdict:
        if look.error is not None:
            return Verdict(look.generation.key, "geneval", self.version, error=look.error)
        ruling = decide_verdict(look.prompt.checks, look.detections, self.thresholds)
        return Verdict(
            look.generation.key,
            "geneval",
            self.version,
            score=float(ruling.correct),
            passed=ruling.correct,
            reason=ruling.reason,
            evidence=_evidence(ruling, look),
        )


def colored(checks: Json, look: _Look, thresholds: Thresholds) -> list[int]:
    """Places of the detections whose colour GenEval looks at: the best `count` boxes of a class."""
    kept = filter_detections(look.detections, checks.get("tag") == "counting", thresholds)
    wanted = [item for item in checks["include"] if "color" in item]
    enough = [item for item in wanted if len(kept.get(item["class"], ())) >= item["count"]]
    chosen = {id(box) for item in enough for box in kept[item["class"]][: item["count"]]}
    return [i for i, detection in enumerate(look.detections) if id(detection) in chosen]


def crop(pixels: Pixels, instance: Instance) -> Image.Image:
    """The object's box with everything outside its mask painted over."""
    x0, y0, x1, y1 = (round(edge) for edge in instance.box)
    image = Image.fromarray(pixels[y0:y1, x0:x1])
    mask = Image.fromarray(instance.mask[y0:y1, x0:x1])
    return Image.composite(image, Image.new("RGB", image.size, OUTSIDE), mask)


def _pixels(look: _Look) -> tuple[Pixels | None, str | None]:
    checks = look.prompt.checks
    if not isinstance(checks, dict) or "include" not in checks:
        return None, f"prompt {look.prompt.id!r} has no GenEval checks (include)"
    try:
        return read_image(look.generation), None
    except BadInput as error:
        return None, str(error)


def _evidence(ruling: Ruling, look: _Look) -> Json:
    """Every kept box with class, score, colours and mask."""
    kept = {id(detection) for boxes in ruling.kept.values() for detection in boxes}
    pairs = zip(look.detections, look.instances, strict=True)
    return {"boxes": [asdict(replace(d, mask=encode_mask(i.mask))) for d, i in pairs if id(d) in kept]}


def _checked(options: Options) -> Options:
    if options.detector not in ("mask2former", "mmdet"):
        raise BadInput(f"detector {options.detector!r} of judge 'geneval' is unknown: mask2former or mmdet")
    if options.dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput(f"dtype {options.dtype!r} of judge 'geneval': float32, bfloat16 or float16")
    whole = isinstance(options.batch_size, int) and not isinstance(options.batch_size, bool)
    if not whole or options.batch_size < 1:
        raise BadInput(f"batch_size {options.batch_size!r} of judge 'geneval': a whole number >= 1")
    return options


def _weights(path: str, name: str) -> Path:
    if not path:
        return find_weights(name)
    if not Path(path).is_file():
        raise BadInput(f"no file {path} for judge 'geneval'")
    return Path(path).resolve()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


JUDGE = GenEvalJudge
