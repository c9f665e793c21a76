"""Folders of runs over checkpoints, as trainings leave them: stored runs with drawn scores, no engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sar_eval.types import Prompt
from tests.stored_runs import begin_run, store_generations, store_verdicts

TASKS = ("counting", "colors", "position")


def make_suite(per_task: int = 20) -> list[Prompt]:
    """Prompts of three tasks."""
    return [Prompt(f"{task}-{n:03d}", "a red star", task) for task in TASKS for n in range(per_task)]


def write_run(path: Path, prompts: Sequence[Prompt], share: float, *, day: int = 1, **changes) -> Path:
    """A finished run of which so many images are right; prompts differ in how hard they are.

    Runs of one suite have the same hard prompts. What is drawn depends on the digest of the
    protocol.
    """
    spec, folder = begin_run(path, prompts, **changes)
    hard = np.random.default_rng(7).normal(0, 0.15, len(prompts))
    rng = np.random.default_rng(int(spec.digest, 16))
    keys = [f"{p.id}/{i}" for p in prompts for i in range(spec.images_per_prompt)]
    chances = np.repeat(np.clip(share + hard, 0, 1), spec.images_per_prompt)
    store_generations(spec, folder, dict.fromkeys(keys, b"png"))
    store_verdicts(
        spec, folder, dict(zip(keys, (rng.random(len(keys)) < chances).astype(float).tolist(), strict=True))
    )
    began = 1_700_000_000 + 86_400 * day
    os.utime(path / "run.json", (began, began))
    return path


def write_training(
    folder: Path, shares: Sequence[float], *, per_task: int = 20, name: str = "sft", **changes
) -> Path:
    """A run of each checkpoint `step-1000`, `step-2000`, ... with these shares of right images."""
    prompts = make_suite(per_task)
    for number, share in enumerate(shares, 1):
        settings = {
            "checkpoint": f"/out/{name}/step-{1000 * number}",
            "checkpoint_digest": f"{name}{number}",
        }
        write_run(folder / f"{name}-{number}", prompts, share, day=number, **{**settings, **changes})
    return folder
