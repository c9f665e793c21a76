"""A training journal for tests of its page and of trackers: every figure is a function of its step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sar_eval.images.files import encode_png
from sar_eval.storage import training_journal as stored
from sar_eval.storage.training_journal import HoldoutRow, JournalHead, Kind, SampleRow, StepRow

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&{{7*7}}"


def figures(step: int) -> dict[str, float]:
    """What a step records; the reward of step 5 is no number."""
    reward = math.nan if step == 5 else 0.25 + 0.01 * (step % 7)
    return {
        "reward": reward,
        "reward/shapes": 0.5,
        "varied": 0.75,
        "varied/shapes": 0.5,
        "kl": 0.001 * step,
        "grad_norm": 500.0 if step == 17 else 1.0 + 0.1 * (step % 5),
        f"odd/{HOSTILE}": 1.0,
        "seconds/rollout": 2.0,
        "seconds/train": 1.0,
    }


def sample(kind: Kind, prompt: str, index: int, image: bytes | None = None) -> SampleRow:
    """A picture of a step; without an image, a failed draw."""
    shown = image or encode_png(np.full((16, 16, 3), 200, np.uint8))
    failed = {"image": None, "error": f"too long {HOSTILE}"} if image == b"" else {"image": shown}
    return SampleRow(
        kind=kind,
        prompt_id=f"p-{index}",
        prompt=prompt,
        index=index,
        seed=7,
        scores={"shapes": 1.0},
        reward=0.625,
        **failed,
    )


def write_journal(
    folder: Path, steps: int, every: int = 10, settings: Mapping[str, object] | None = None
) -> Path:
    """A journal with two judges, of which `falls` falls, watched prompts, the best and the worst."""
    numbers = range(1, steps + 1)
    rows = [StepRow(n, figures(n), f"NaN {HOSTILE}" if n == 5 else "") for n in numbers]
    stored.write_steps(folder, rows)
    holdout, looked = [], range(0, steps + 1, every)
    for step in looked:
        for judge, change in (("rises", 0.001 * step), ("falls", -0.002 * step)):
            ends = {"change": change, "change_low": change - 0.01, "change_high": change + 0.01}
            value = {"value": 0.5 + change, "low": 0.45 + change, "high": 0.55 + change}
            holdout.append(HoldoutRow(step=step, judge=judge, n=48, **value, **(ends if step else {})))
        pictures = [sample("watch", "a red star", 0), sample("watch", HOSTILE, 1)]
        pictures += [sample("best", "a ring", 2), sample("worst", HOSTILE, 3, b"")]
        stored.write_samples(folder, step, pictures)
    stored.write_holdout(folder, holdout)
    notes = (f"placebo: rewards are shuffled {HOSTILE}",)
    halt = stored.Halt(step=steps, why="a hold-out judge fell")
    told = settings or {"recipe": HOSTILE, "grpo": {"steps": steps, "clip": [0.2, 0.28], "deep": {"a": 1}}}
    stored.write_head(folder, JournalHead(settings=told, notes=notes, halt=halt))
    return folder
