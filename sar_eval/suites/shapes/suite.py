"""Sample the prompt suite `shapes`: six tasks, four of them split into seen and unseen combinations."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from sar_eval.errors import BadInput
from sar_eval.suites.shapes.scenes import sample_checks
from sar_eval.suites.shapes.vocabulary import TASKS, needs_held_out
from sar_eval.types import Json

# Tasks whose prompts name combinations that can be held out of training.
SPLIT_TASKS = ("two_object", "colors", "position", "color_attr")
UNSEEN_SHARE = 0.2
# Consecutive samples without a usable new prompt after which a task counts as exhausted. The rarest
# prompt of a small task comes once in some 2,000 samples, so giving up too early is unlikely.
MAX_REPEATS = 20_000


def make_suite(seed: int = 43, per_task: int = 60) -> list[Json]:
    """Sample a suite of distinct prompts; a fifth of the split tasks' prompts are unseen.

    Raises:
        BadInput: a task has fewer than `per_task` distinct prompts.
    """
    rng = random.Random(seed)
    return [row for task in TASKS for row in task_rows(task, per_task, rng)]


def task_rows(
    task: str,
    number: int,
    rng: random.Random,
    without: frozenset[str] = frozenset(),
    *,
    fewer: bool = False,
) -> list[Json]:
    """Distinct prompts of one task.

    Args:
        task: its name.
        number: of prompts.
        rng: where they come from.
        without: texts that are left out.
        fewer: give what there is of an exhausted task instead of an error.

    Raises:
        BadInput: the task is exhausted.
    """
    quota = {"unseen": round(number * UNSEEN_SHARE) if task in SPLIT_TASKS else 0}
    quota["seen"] = number - quota["unseen"]
    rows: dict[str, Json] = {}
    repeats = 0
    while any(quota.values()):
        if repeats == MAX_REPEATS:
            if fewer:
                break
            raise BadInput(_exhausted_message(task, quota, rows.values()))
        repeats += 1
        checks = sample_checks(task, rng)
        split = "unseen" if needs_held_out(checks) else "seen"
        if quota[split] and checks["prompt"] not in rows and checks["prompt"] not in without:
            quota[split] -= 1
            repeats = 0
            rows[checks["prompt"]] = {
                "text": checks["prompt"],
                "tag": task,
                "split": split,
                "checks": checks,
            }
    return [{"id": f"{task}-{i:03d}", **row} for i, row in enumerate(rows.values())]


def _exhausted_message(task: str, quota: Mapping[str, int], rows: Iterable[Json]) -> str:
    """How many prompts the exhausted split has (tasks without splits have one)."""
    exhausted = next(split for split, missing in quota.items() if missing)
    number = sum(row["split"] == exhausted for row in rows)
    kind = f"{exhausted} prompts" if task in SPLIT_TASKS else "prompts"
    return f"only {number} distinct {kind} of {task}: ask for fewer with --per-task"
