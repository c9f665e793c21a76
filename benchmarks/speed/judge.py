"""How fast GenEval's judge is here, where its time goes, and what bfloat16 costs in verdicts.

    python benchmarks/speed/judge.py [--images DIR] [--number 16] [--size 1024] [--device cuda]

Without `--weights` and `--clip-weights` the networks have the official shapes and random weights
(drawn once, in a temporary folder): their speed is the same, their verdicts mean nothing, and so
the count of flipped verdicts is printed for real weights only. Images are made up unless
`--images` names a folder of them.
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

LEAST = 0.3


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


def made_up(number: int, size: int) -> list[bytes]:
    """Soft noise as PNG."""
    found = []
    for seed in range(number):
        coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


class Clock:
    """Seconds by stage; waits for the device before it looks."""

    def __init__(self, device: str) -> None:
        self.device, self.taken = device, {}

    def __call__(self, name: str, work, *given):  # noqa: ANN001, ANN002, ANN204 - any work at all
        """Do the work and note how long it took."""
        began = time.perf_counter()
        result = work(*given)
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        self.taken[name] = self.taken.get(name, 0.0) + time.perf_counter() - began
        return result


def stages(data: list[bytes], judge: GenEvalJudge, batch: int, least: float) -> dict[str, float]:
    """Seconds of each step for all images, one after the other (a run overlaps decoding)."""
    clock, detector = Clock(judge.device), judge._detector
    assert isinstance(detector, Mask2Former)

    def decode(part: list[bytes]) -> list:
        return [decode_image(one) for one in part]

    def resize(pixels: list) -> list:
        return [prepare(one) for one in pixels]

    def finish(classes: torch.Tensor, masks: torch.Tensor, ready: list) -> list:
        return [to_instances(*one, least) for one in zip(classes, masks, ready, strict=True)]

    def color(pixels: list, found: list) -> None:
        crops = [crop(image, some[0]) for image, some in zip(pixels, found, strict=True) if some]
        judge._classifier.classify(crops, ["dog"] * len(crops))

    for start in range(0, len(data), batch):
        pixels = clock("decode", decode, data[start : start + batch])
        ready = clock("resize", resize, pixels)
        classes, masks = clock("network", detector.logits, ready)
        found = clock("postprocess", finish, classes, masks, ready)
        clock("clip", color, pixels, found)
    return clock.taken


def checks_of(path: Path) -> dict:
    """The metadata of the official layout beside an image, or a question that any image can answer."""
    metadata = path.parent.parent / "metadata.jsonl"
    if metadata.is_file():
        return json.loads(metadata.read_text())
    return {"tag": "colors", "include": [{"class": "person", "count": 1, "color": "red"}]}


def verdicts(data: list[bytes], checks: list[dict], judge: GenEvalJudge) -> list[bool | None]:
    """Whether each image passes."""
    items = [
        (Prompt(f"{i:05d}", "", asked["tag"], asked), Generation(f"{i:05d}/0", i, image=one))
        for i, (one, asked) in enumerate(zip(data, checks, strict=True))
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
    told = parser.parse_args()
    data, paths = made_up(told.number, told.size), [Path()] * told.number
    if told.images:
        paths = sorted(path for path in told.images.rglob("*") if path.suffix.lower() in SUFFIXES)
        paths = paths[: told.number]
        data = [path.read_bytes() for path in paths]
    checks = [checks_of(path) for path in paths]
    card = torch.cuda.get_device_name() if told.device.startswith("cuda") else f"{cores()} cores"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {card}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as place:
        files = {
            "weights": str(told.weights or random_detector(Path(place))),
            "clip_weights": str(told.clip_weights or random_clip(Path(place))),
            "clip": told.clip,
        }
        rows, seen = {}, {}
        for name, dtype, least in (
            ("float32", "float32", LEAST),
            ("float32, every mask", "float32", -1.0),
            ("bfloat16", "bfloat16", LEAST),
        ):
            with GenEvalJudge(device=told.device, dtype=dtype, batch_size=told.batch, **files) as judge:
                stages(data[:1], judge, told.batch, least)
                rows[name] = stages(data, judge, told.batch, least)
                seen[name] = verdicts(data, checks, judge) if told.weights else []
    steps = list(rows["float32"])
    print(f"| variant | images/s | against float32 | {' | '.join(steps)} |")
    print(f"|---|---:|---:|{'---:|' * len(steps)}")
    whole = sum(rows["float32"].values())
    for name, taken in rows.items():
        total = sum(taken.values())
        cells = [name, f"{len(data) / total:.2f}", f"{whole / total:.2f}x"]
        print(f"| {' | '.join(cells + [f'{taken[step] / total:.0%}' for step in steps])} |")
    if told.weights:
        flipped = sum(a != b for a, b in zip(seen["float32"], seen["bfloat16"], strict=True))
        print(f"\nVerdicts that bfloat16 flips: {flipped} of {len(data)}")
    else:
        print("\nRandom weights: how many verdicts bfloat16 flips needs real ones (--weights).")


if __name__ == "__main__":
    main()
