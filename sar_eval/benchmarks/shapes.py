"""Shapes: GenEval in miniature on a world of plain coloured shapes, split into seen and unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.stats import clustered_metric
from sar_eval.suites.geneval.scoring import group_by_task, metrics_of_tasks, scores_by_prompt
from sar_eval.suites.shapes.suite import SPLIT_TASKS
from sar_eval.types import Metric, Prompt, Verdict


class ShapesFold:
    """GenEval's metrics, and the tasks with held-out combinations by split."""

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
        """GenEval's metrics, then `split/seen` and `split/unseen` over the four split tasks."""
        splits, by_prompt = [], scores_by_prompt(verdicts)
        for split in ("seen", "unseen"):
            in_split = [p for p in prompts if p.split == split and p.tag in SPLIT_TASKS]
            scores = group_by_task(in_split, by_prompt)
            splits.append(clustered_metric(f"split/{split}", list(scores.values())))
        return (*metrics_of_tasks(group_by_task(prompts, by_prompt)), *splits)


BENCHMARK = ShapesFold
