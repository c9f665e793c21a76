"""How fast `run shapes` is on this machine: images/s by batch size, and the share of each stage.

    python benchmarks/speed/shapes.py [--images-per-prompt 4] [--workers N]

Ratios are of variants in this very run; absolute figures depend on the machine and its mood. The
roofline is what the decoder's multiplications alone would take at this machine's measured matrix
speed in float32.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from sar_eval.engines.native import NativeEngine
from sar_eval.machine import cores
from sar_eval.recipe import load_recipe
from sar_eval.report.page import write_report
from sar_eval.runtime.local import LocalRuntime
from sar_eval.runtime.progress import ProgressEvent
from sar_eval.runtime.slots import make_slots
from sar_eval.spec import RunSpec
from sar_eval.stages.generate import generate
from sar_eval.stages.judge import judge
from sar_eval.stages.resolve import resolve
from sar_eval.stages.resume import prepare
from sar_eval.stages.summarize import summarize
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt, make_draw

BATCHES = (1, 16, 64, 256)


def matrix_speed(seconds: float = 1.0) -> float:
    """FLOP/s of float32 matrix products on one thread."""
    torch.set_num_threads(1)
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        a @ b
        products += 1
    return products * 2 * 512**3 / (time.perf_counter() - began)


def flop_per_image(engine: NativeEngine) -> float:
    """Multiplications and additions of one image: every weight once a token and row, two rows."""
    weights = sum(
        t.weight.numel()
        for layer in engine.decoder.layers
        for t in (layer.qkv, layer.out, layer.gate_up, layer.down)
    )
    head = engine.checkpoint.codebook_size * engine.decoder.config.hidden_size
    tokens = engine.image_tokens
    return 2 * 2 * tokens * (weights + head)


def engine_speed(spec: RunSpec, batch: int) -> tuple[float, float]:
    """(images/s, roofline images/s) of one worker with one thread at this batch size."""
    number = max(8, min(256, batch * 2))
    draws = [
        make_draw(Prompt(f"p{i}", "a photo of a red star left of a ring"), 0, i) for i in range(number)
    ]
    with NativeEngine(spec.checkpoint, spec.protocol, batch_size=batch) as engine:
        torch.set_num_threads(1)
        list(engine.generate(draws[:batch]))
        began = time.perf_counter()
        list(engine.generate(draws))
        return number / (time.perf_counter() - began), matrix_speed(0.5) / flop_per_image(engine)


def stage_seconds(spec: RunSpec, workers: int) -> dict[str, float]:
    """Wall seconds of each stage of a whole run."""

    def quiet(event: ProgressEvent) -> None:
        del event

    with tempfile.TemporaryDirectory() as temporary:
        folder, runtime, taken = RunFolder(Path(temporary)), LocalRuntime(make_slots(workers, [])), {}
        prepare(spec, folder)
        stages = {
            "generate": lambda: generate(spec, folder, runtime, quiet),
            "judge": lambda: judge(spec, folder, runtime, quiet),
            "summarize": lambda: summarize(spec, folder),
            "report": lambda: write_report(spec, folder),
        }
        for name, stage in stages.items():
            began = time.perf_counter()
            stage()
            taken[name] = time.perf_counter() - began
        return taken


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images-per-prompt", type=int, default=4)
    parser.add_argument("--workers", type=int, default=cores())
    options = parser.parse_args()
    overrides = {"images_per_prompt": options.images_per_prompt}
    spec = resolve(load_recipe("shapes"), "demo:sft", overrides)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {cores()} cores, torch {torch.__version__}\n"
    )
    print("| batch | images/s, one worker, one thread | against batch 1 | roofline images/s |")
    print("|---:|---:|---:|---:|")
    speeds = {batch: engine_speed(spec, batch) for batch in BATCHES}
    for batch, (speed, roof) in speeds.items():
        print(f"| {batch} | {speed:.1f} | {speed / speeds[1][0]:.1f}x | {roof:.0f} |")
    taken = stage_seconds(spec, options.workers)
    total = sum(taken.values())
    images = 360 * options.images_per_prompt
    print(f"\n{images} images, {options.workers} workers: {total:.0f} s\n")
    print("| stage | seconds | share | images/s |")
    print("|---|---:|---:|---:|")
    for name, seconds in taken.items():
        print(f"| {name} | {seconds:.1f} | {seconds / total:.0%} | {images / seconds:.1f} |")


if __name__ == "__main__":
    main()
