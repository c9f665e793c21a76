"""Shapes: GenEval in miniature on a world of plain coloured shapes, split into seen and unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure, draw_scores
from sar_eval.suites.geneval.scoring import measures_of_tasks
from sar_eval.suites.shapes.suite import SPLIT_TASKS
from sar_eval.types import Prompt, Verdict


class ShapesFold:
    """GenEval's figures, and the tasks with held-out combinations by split."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """GenEval's, then `split/seen` and `split/unseen` over the four split tasks."""
        scores = draw_scores(prompts, verdicts)
        splits = []
        for split in ("seen", "unseen"):
            labels = [p.tag if p.split == split and p.tag in SPLIT_TASKS else None for p in prompts]
            splits.append(Measure(f"split/{split}", scores.strata(labels)))
        return (*measures_of_tasks(scores.strata([p.tag for p in prompts])), *splits)


BENCHMARK = ShapesFold
