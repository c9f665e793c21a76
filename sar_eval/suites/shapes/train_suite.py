"""Sample prompts of the demo world to train on: no text of the benchmarks `shapes` and `dpg-shapes`.

Texts are disjoint, contents are not: "a photo of a red circle" may be a test where "a sketch of a red
circle" is trained on. Prompts of held-out combinations are labelled `unseen`, so that a recipe which wants
to measure generalisation trains on `split = "seen"` alone.
"""

from __future__ import annotations

import random

from sar_eval.suites.shapes import questions, suite
from sar_eval.suites.shapes.vocabulary import TASKS
from sar_eval.types import Json


def make_suite(seed: int = 7, per_task: int = 120) -> list[Json]:
    """Sample distinct prompts, a fifth of the split tasks' of them unseen; a small task gives what is left.

    single_object has 64 texts in all, of which the benchmark asks 60.
    """
    rng = random.Random(seed)
    tested = frozenset(row["text"] for made in (suite, questions) for row in made.make_suite())
    return [row for task in TASKS for row in suite.task_rows(task, per_task, rng, tested, fewer=True)]
