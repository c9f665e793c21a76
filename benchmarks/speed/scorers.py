"""Measures scorers of the official shapes: batched beside one picture a call, together beside one by one.

    python benchmarks/speed/scorers.py [--number 8] [--size 1024] [--device cuda] [--images DIR]

The networks are HPS's ViT-H/14, ImageReward and OpenAI's ViT-L/14 with random weights in a temporary folder
(some 5 GB): their speed is that of the released ones, their numbers mean nothing. "One a call" is how the
official scripts work: read, resize, forward, one picture after the other. The share of network time is
measured by hooks around the outermost modules; the roofline is what the networks' own forwards alone would
give. On a GPU, bfloat16 follows with the largest deviation from float32 beside it.
"""

from __future__ import annotations

import argparse
import io
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from sar_eval.images.files import SUFFIXES
from sar_eval.machine import cores
from sar_eval.scoring import ScorerSet
from sar_eval.types import Json

PROMPT = "a photograph of {} red cubes on a wooden table, soft light"
ON_CLIP = ["clip:imagereward", "aesthetic", "aesthetic:v1"]  # that share one network


@dataclass(slots=True)
class Timed:
    """One measured variant: seconds in all, seconds inside networks, and the scores by scorer."""

    seconds: float
    network: float
    scores: list[dict[str, float]]


def random_clip(folder: Path, name: str, *, half: bool) -> Path:
    """An architecture of open_clip with random weights."""
    import open_clip
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    torch.manual_seed(0)
    state = open_clip.create_model(name).state_dict()
    save_file({n: t.half() if half else t for n, t in state.items()}, path)
    return path


def random_image_reward(folder: Path) -> Path:
    """ImageReward's network at the released sizes, in the official names, with made-up word pieces."""
    from sar_eval.networks.image_reward.network import ImageRewardNetwork
    from sar_eval.networks.image_reward.shape import Shape
    from sar_eval.networks.image_reward.weights import official_name

    heads = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    torch.manual_seed(0)
    network = ImageRewardNetwork(Shape(224, 16, 1024, 24, 16, 4096, 768, 12, 12, 3072, 30_524, 512, heads))
    torch.save({official_name(n): t for n, t in network.state_dict().items()}, folder / "ImageReward.pt")
    words = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    lines = [
        words.get(i) or (next(letters, f"[unused{i}]") if i > 103 else f"[unused{i}]")
        for i in range(30_522)
    ]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n")
    return folder / "ImageReward.pt"


def random_heads(folder: Path) -> dict[str, str]:
    """Aesthetic heads with random numbers, by variant."""
    generator = torch.Generator().manual_seed(0)
    sizes = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    v2 = {}
    for index, (rows, columns) in sizes.items():
        v2[f"layers.{index}.weight"] = torch.randn(rows, columns, generator=generator) / columns**0.5
        v2[f"layers.{index}.bias"] = torch.zeros(rows)
    torch.save(v2, folder / "v2.pth")
    torch.save(
        {"weight": torch.randn(1, 768, generator=generator), "bias": torch.zeros(1)}, folder / "v1.pth"
    )
    return {"v2": str(folder / "v2.pth"), "v1": str(folder / "v1.pth")}


def random_options(folder: Path) -> dict[str, dict[str, Json]]:
    """Options of every scorer that name its random weights."""
    clip = str(random_clip(folder, "ViT-L-14-quickgelu", half=False))
    heads = random_heads(folder)
    return {
        "hps": {"weights": str(random_clip(folder, "ViT-H-14", half=True))},
        "imagereward": {"weights": str(random_image_reward(folder))},
        "clip:imagereward": {"weights": clip},
        "aesthetic": {"weights": heads["v2"], "clip_weights": clip},
        "aesthetic:v1": {"weights": heads["v1"], "clip_weights": clip},
    }


def pictures(number: int, size: int, folder: Path | None) -> list[bytes]:
    """Encoded pictures: those of a folder, or smooth noise as PNG."""
    if folder is not None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        return [path.read_bytes() for path in found[:number]]
    data = []
    for seed in range(number):
        coarse = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
        data.append(buffer.getvalue())
    return data


@contextmanager
def network_clock(device: str) -> Iterator[list[float]]:
    """Seconds inside the outermost modules, in a list of one number."""
    seconds, depth, start = [0.0], [0], [0.0]

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    def enter(*_: object) -> None:
        if depth[0] == 0:
            wait()
            start[0] = time.perf_counter()
        depth[0] += 1

    def leave(*_: object) -> None:
        depth[0] -= 1
        if depth[0] == 0:
            wait()
            seconds[0] += time.perf_counter() - start[0]

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def measure(scorers: ScorerSet, data: list[bytes], prompts: list[str], device: str, *, each: bool) -> Timed:
    """Score all pictures, in batches or, with `each`, one picture a call."""
    with network_clock(device) as network:
        start = time.perf_counter()
        if each:
            calls = [scorers.score([one], [text]) for one, text in zip(data, prompts, strict=True)]
            found = [scored for call in calls for scored in call]
        else:
            found = list(scorers.score(data, prompts))
        seconds = time.perf_counter() - start
    assert not any(scored.errors for scored in found), found
    return Timed(seconds, network[0], [scored.scores for scored in found])


def deviation(first: Timed, second: Timed) -> str:
    """The largest difference of a score, by scorer."""
    names = first.scores[0]
    largest = {
        name: max(abs(a[name] - b[name]) for a, b in zip(first.scores, second.scores, strict=True))
        for name in names
    }
    return ", ".join(f"{name} {value:.1e}" for name, value in largest.items())


def row(name: str, timed: Timed, base: Timed, note: str = "") -> None:
    """One line of the table."""
    number = len(timed.scores)
    rate, roof = number / timed.seconds, number / timed.network
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    against, share = base.seconds / timed.seconds, timed.network / timed.seconds
    print(
        f"| {name} | {rate:.2f} | {against:.2f}x | {share:.0%} | {roof:.2f} | {memory:.1f} | {note} |",
        flush=True,
    )


def compare(names: list[str], options: dict, data: list[bytes], device: str, batch: int) -> Timed:
    """The rows of some scorers; returns the batched variant in float32."""
    prompts = [PROMPT.format(i) for i in range(len(data))]
    own = {name: table for name, table in options.items() if name in names}
    with ScorerSet(names, device=device, batch_size=batch, options=own) as scorers:
        measure(scorers, data[:1], prompts[:1], device, each=True)  # allocations, thread pools
        single = measure(scorers, data, prompts, device, each=True)
        batched = measure(scorers, data, prompts, device, each=False)
    label = " + ".join(names)
    row(f"{label}, one a call", single, single)
    row(f"{label}, batches of {batch}", batched, single, deviation(batched, single))
    if device.startswith("cuda"):
        with ScorerSet(names, device=device, dtype="bfloat16", batch_size=batch, options=own) as scorers:
            measure(scorers, data[:1], prompts[:1], device, each=True)
            half = measure(scorers, data, prompts, device, each=False)
        row(f"{label}, bfloat16", half, single, deviation(batched, half))
    return batched


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=8)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=Path)
    asked = parser.parse_args()
    card = torch.cuda.get_device_name() if asked.device.startswith("cuda") else "no GPU"
    machine = f"{platform.machine()}, {cores()} cores, torch {torch.__version__}, {card}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}\n")
    print(
        "| scorers | pictures/s | against one a call | network "
        "| roofline, pictures/s | peak GB | differs by |"
    )
    print("|---|---:|---:|---:|---:|---:|---|")
    data = pictures(asked.number, asked.size, asked.images)
    with tempfile.TemporaryDirectory() as folder:
        options = random_options(Path(folder))
        alone = [compare([name], options, data, asked.device, asked.batch) for name in ON_CLIP]
        together = compare(ON_CLIP, options, data, asked.device, asked.batch)
        for name in ("imagereward", "hps"):
            compare([name], options, data, asked.device, asked.batch)
    ratio = sum(timed.seconds for timed in alone) / together.seconds
    print(f"\n{len(ON_CLIP)} scorers on one network together: {ratio:.2f}x as fast as one after the other.")


if __name__ == "__main__":
    main()
