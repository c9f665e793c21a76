"""Measures the speed of GenEval's judge by step, and how many verdicts bfloat16 changes.

    python benchmarks/speed/judge.py [--images DIR] [--number 16] [--size 1024] [--device cuda]

Without `--weights` and `--clip-weights` the networks have the official shapes and random weights, in a
temporary folder: their speed is the same, but their verdicts mean nothing, so changed verdicts are counted
for real weights only. Images are generated unless `--images` names a folder of them.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sar_eval.images.files import SUFFIXES, decode_image
from sar_eval.judges.geneval import GenEvalJudge, crop
from sar_eval.networks.mask2former.mmdet_weights import infer_config
from sar_eval.networks.mask2former.network import UNUSED, Mask2Former, prepare, to_instances
from sar_eval.runtime.slots import cores
from sar_eval.types import Generation, Prompt

MIN_SCORE = 0.3


def random_detector(folder: Path) -> Path:
    """Mask2Former Swin-S with random weights, in our converted format."""
    import transformers
    from safetensors.torch import save_file

    backbone = transformers.SwinConfig(
        embed_dim=96,
        depths=[2, 2, 18, 2],
        num_heads=[3, 6, 12, 24],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(backbone_config=backbone, num_labels=80, num_queries=100)
    torch.manual_seed(0)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=0.5)
    state = {n: t.contiguous() for n, t in model.state_dict().items() if not n.startswith(UNUSED)}
    save_file(state, folder / "detector.safetensors", metadata={"config": json.dumps(infer_config(state))})
    return folder / "detector.safetensors"


def random_clip(folder: Path) -> Path:
    """ViT-L/14 with random weights."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-L-14-quickgelu").state_dict(), folder / "clip.safetensors")
    return folder / "clip.safetensors"


def random_images(number: int, size: int) -> list[bytes]:
    """Smooth noise as PNG."""
    images = []
    for seed in range(number):
        coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
        images.append(buffer.getvalue())
    return images


class Timer:
    """Seconds by step, with the device synchronised."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds = device, {}

    def __call__(self, step: str, function, *args):  # noqa: ANN001, ANN002, ANN204 - any function
        """Call the function and add its time to the step's."""
        start = time.perf_counter()
        result = function(*args)
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start
        return result


def time_steps(data: list[bytes], judge: GenEvalJudge, batch: int, min_score: float) -> dict[str, float]:
    """Seconds of each step for all images, one after the other (a run overlaps decoding)."""
    timer, detector = Timer(judge.device), judge._detector
    assert isinstance(detector, Mask2Former)

    def decode(images: list[bytes]) -> list:
        return [decode_image(image) for image in images]

    def resize(pixels: list) -> list:
        return [prepare(image) for image in pixels]

    def postprocess(classes: torch.Tensor, masks: torch.Tensor, prepared: list) -> list:
        return [to_instances(*args, min_score) for args in zip(classes, masks, prepared, strict=True)]

    def classify(pixels: list, instances: list) -> None:
        crops = [crop(image, best[0]) for image, best in zip(pixels, instances, strict=True) if best]
        judge._classifier.classify(crops, ["dog"] * len(crops))

    for start in range(0, len(data), batch):
        pixels = timer("decode", decode, data[start : start + batch])
        prepared = timer("resize", resize, pixels)
        classes, masks = timer("network", detector.logits, prepared)
        instances = timer("postprocess", postprocess, classes, masks, prepared)
        timer("clip", classify, pixels, instances)
    return timer.seconds


def checks_of(path: Path) -> dict:
    """The metadata of the official layout beside an image, or checks that fit any image."""
    metadata = path.parent.parent / "metadata.jsonl"
    if metadata.is_file():
        return json.loads(metadata.read_text())
    return {"tag": "colors", "include": [{"class": "person", "count": 1, "color": "red"}]}


def verdicts(data: list[bytes], checks: list[dict], judge: GenEvalJudge) -> list[bool | None]:
    """Whether each image passes."""
    items = [
        (Prompt(f"{i:05d}", "", check["tag"], check), Generation(f"{i:05d}/0", i, image=image))
        for i, (image, check) in enumerate(zip(data, checks, strict=True))
    ]
    return [verdict.passed for verdict in judge.judge(items)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--number", type=int, default=8)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--clip-weights", type=Path)
    parser.add_argument("--clip", default="ViT-L-14-quickgelu", help="architecture of --clip-weights")
    options = parser.parse_args()
    data, paths = random_images(options.number, options.size), [Path()] * options.number
    if options.images:
        paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in SUFFIXES)
        paths = paths[: options.number]
        data = [path.read_bytes() for path in paths]
    checks = [checks_of(path) for path in paths]
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"{cores()} cores"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {card}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "weights": str(options.weights or random_detector(Path(folder))),
            "clip_weights": str(options.clip_weights or random_clip(Path(folder))),
            "clip": options.clip,
        }
        seconds, passed = {}, {}
        for name, dtype, min_score in (
            ("float32", "float32", MIN_SCORE),
            ("float32, every mask", "float32", -1.0),
            ("bfloat16", "bfloat16", MIN_SCORE),
        ):
            with GenEvalJudge(
                device=options.device, dtype=dtype, batch_size=options.batch, **files
            ) as judge:
                time_steps(data[:1], judge, options.batch, min_score)  # warm-up
                seconds[name] = time_steps(data, judge, options.batch, min_score)
                passed[name] = verdicts(data, checks, judge) if options.weights else []
    steps = list(seconds["float32"])
    print(f"| variant | images/s | against float32 | {' | '.join(steps)} |")
    print(f"|---|---:|---:|{'---:|' * len(steps)}")
    float32_total = sum(seconds["float32"].values())
    for name, by_step in seconds.items():
        total = sum(by_step.values())
        cells = [name, f"{len(data) / total:.2f}", f"{float32_total / total:.2f}x"]
        print(f"| {' | '.join(cells + [f'{by_step[step] / total:.0%}' for step in steps])} |")
    if options.weights:
        flipped = sum(a != b for a, b in zip(passed["float32"], passed["bfloat16"], strict=True))
        print(f"\nVerdicts that bfloat16 changes: {flipped} of {len(data)}")
    else:
        print("\nRandom weights: verdicts that bfloat16 changes are counted with --weights only.")


if __name__ == "__main__":
    main()
