"""Shapes: GenEval in miniature on a world of plain coloured shapes, split into seen and unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.stats import clustered_metric
from sar_eval.suites.geneval.scoring import fold_by_task, scores_by_task
from sar_eval.suites.shapes.suite import SPLIT_TASKS
from sar_eval.types import Metric, Prompt, Verdict


class ShapesFold:
    """GenEval's fold, and the tasks that can hold something out once more by split."""

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Metric, ...]:
        """GenEval's metrics, then `split/seen` and `split/unseen` over the four split tasks."""
        splits = []
        for split in ("seen", "unseen"):
            part = [p for p in prompts if p.split == split and p.tag in SPLIT_TASKS]
            splits.append(clustered_metric(f"split/{split}", list(scores_by_task(part, verdicts).values())))
        return (*fold_by_task(prompts, verdicts), *splits)


BENCHMARK = ShapesFold
