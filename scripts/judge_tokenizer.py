"""Judge visual tokenizers of the demo world: python scripts/judge_tokenizer.py SHARDS TOKENIZER...

For each TOKENIZER, a folder: the share of 1,200 scenes that are judged right after encoding and decoding,
how many codes the pictures in SHARDS (a decoder's training data) use, and how many pictures of held-out
combinations need a code that none of those has.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch  # noqa: TID253
from torch import Tensor  # noqa: TID253

from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.stats.intervals import wilson_interval
from sar_eval.storage.shards import read_images
from sar_eval.suites.geneval.verdict import Thresholds, decide_verdict
from sar_eval.suites.shapes.detect import detect
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import Scene, Style, arrange_scene, sample_checks
from sar_eval.suites.shapes.vocabulary import HELD_OUT_COLORS, HELD_OUT_PAIRS, TASKS

PAIR_TASKS = ("colors", "two_object", "position", "color_attr")  # those with held-out combinations


def sample(number: int, style: Style, tasks: tuple[str, ...], seed: int) -> list[Scene]:
    """Scenes of the tasks in turn, held-out combinations included."""
    rng, scenes = random.Random(seed), []
    while len(scenes) < number:
        checks = sample_checks(tasks[len(scenes) % len(tasks)], rng)
        scene = arrange_scene(checks, rng, style=style, train=False)
        scenes += [scene] if scene else []
    return scenes


def pictures(scenes: list[Scene]) -> Tensor:
    """uint8 `[N, 64, 64, 3]`."""
    return torch.from_numpy(np.stack([render(scene) for scene in scenes]))


def encode(visual: VisualTokenizer, images: Tensor) -> Tensor:
    """Codes `[N, 64]`."""
    return torch.cat([visual.encode(batch) for batch in images.split(1000)])


def count_right(visual: VisualTokenizer, scenes: list[Scene]) -> int:
    """Scenes that are judged right after encoding and decoding."""
    decoded = [
        visual.decode(codes.view(-1, 8, 8)).pixels for codes in encode(visual, pictures(scenes)).split(100)
    ]
    verdicts = [
        decide_verdict(scene.checks, detect(image.numpy()), Thresholds(0.6, 0.6)).correct
        for scene, image in zip(scenes, torch.cat(decoded), strict=True)
    ]
    return sum(verdicts)


def has_color(scene: Scene) -> bool:
    """Whether a shape has a colour that it has in no training image."""
    return any((shape.name, shape.color) in HELD_OUT_COLORS for shape in scene.shapes)


def has_pair(scene: Scene) -> bool:
    """Whether it shows two shapes that share no training image."""
    return any(pair <= {shape.name for shape in scene.shapes} for pair in HELD_OUT_PAIRS)


def describe(folder: Path, training: Tensor) -> None:
    """Print one tokenizer's figures."""
    visual, scenes = VisualTokenizer(folder), sample(1200, "clean", TASKS, 1234)
    right = count_right(visual, scenes)
    low, high = wilson_interval(right / len(scenes), len(scenes))
    print(f"{folder}: {right} of {len(scenes)} judged right, {low:.4f} to {high:.4f}")
    known = encode(visual, training).unique()
    print(f"  {len(known)} of {visual.codebook_size} codes in {len(training)} training images")
    tidy = sample(3000, "tidy", PAIR_TASKS, 5)
    for name, first, other in (("colour", has_color, has_pair), ("pair", has_pair, has_color)):
        held_out = [scene for scene in tidy if first(scene) and not other(scene)]
        new = ~torch.isin(encode(visual, pictures(held_out)), known)
        share, codes = float(new.any(1).float().mean()), float(new.sum(1).float().mean())
        print(
            f"  held-out {name}: {share:.1%} of {len(held_out)} pictures need new codes, {codes:.2f} each"
        )


def main() -> None:
    """Judge what the command line names."""
    shards, *folders = map(Path, sys.argv[1:])
    training = torch.from_numpy(np.stack([image for image, _ in read_images([shards])]))
    for folder in folders:
        describe(folder, training)


if __name__ == "__main__":
    main()
