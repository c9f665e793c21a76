"""Judged runs with visual codes of a checkpoint: what best-of-N and preferences are chosen from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sar_eval.families.simplear import find_checkpoint
from sar_eval.stages.resume import open_blocks
from sar_eval.storage.schemas import generation_row
from sar_eval.types import Draw, DrawProtocol, Generation, Prompt
from tests.stored_runs import begin_run, store_verdicts

PROMPTS = (Prompt("a", "a teal ring beside a cross"), Prompt("b", "two teal rings beside a cross"))
PROTOCOL = DrawProtocol("test", 32, prefix="a photo of ", guidance=2.0)  # 16 tokens of the tiny checkpoint


def random_codes(draw: Draw) -> tuple[int, ...]:
    """16 codes of 64 that depend on the draw's seed alone."""
    return tuple(np.random.default_rng(draw.seed).integers(0, 64, 16).tolist())


def judged_run(
    path: Path,
    checkpoint: Path,
    scores: Mapping[str, float],
    *,
    prompts: Sequence[Prompt] = PROMPTS,
    images: int = 4,
    codes: Callable[[Draw], tuple[int, ...]] = random_codes,
    **changes,
) -> Path:
    """A finished run of these scores; draws without one have an error in place of a verdict."""
    digest = find_checkpoint(str(checkpoint)).digest
    settings = {"checkpoint": str(checkpoint), "checkpoint_digest": digest, "protocol": PROTOCOL}
    settings |= {"images_per_prompt": images, "batch_size": 3}
    spec, folder = begin_run(path, prompts, **{**settings, **changes})
    for number, draws in enumerate(open_blocks(spec, folder)):
        rows = [
            generation_row(d.prompt, Generation(d.key, d.seed, codes(d), d.key.encode()), spec.digest)
            for d in draws
        ]
        folder.write_generations(number, rows, spec.digest)
    store_verdicts(spec, folder, scores)
    return path
